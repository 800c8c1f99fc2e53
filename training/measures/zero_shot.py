"""Zero-shot classification: which of several names is nearest to a picture (Radford et al. 2021, section 3.1)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from training.measures.intervals import LEVEL, RESAMPLES
from training.measures.metrics import Floats

Cosines = npt.NDArray[np.float32]
"""Of pictures and names: [pictures, names]."""

AT = 5
"""The k of the second accuracy."""

METRICS = ("top1", "top5", "per_class", "f1_macro")
"""What is measured: accuracies, the mean of the accuracies of classes, and macro-F1 over the classes that are true."""


@dataclass(frozen=True)
class Figure:
    """A score, and its interval: a bootstrap over pictures."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Confusion:
    """How many pictures of the class `true` have `given` as the nearest name."""

    true: str
    given: str
    count: int


@dataclass(frozen=True)
class ZeroShot:
    """Cosines [pictures, names], and `truth`, int64 [pictures]: the position of the right name.

    A tie counts against the model: the rank of the right name is 1 and the number of others with a cosine at least as
    high.
    """

    cosines: Cosines
    truth: npt.NDArray[np.int64]
    names: Sequence[str]

    @cached_property
    def ranks(self) -> npt.NDArray[np.int64]:
        """Of the right name of each picture, from 1."""
        right = self.cosines[np.arange(len(self.truth)), self.truth][:, None]
        at_least: npt.NDArray[np.int64] = (self.cosines >= right).sum(axis=1)
        return at_least

    @cached_property
    def given(self) -> npt.NDArray[np.int64]:
        """The nearest name of each picture; in a tie with the right one, another."""
        wrong = self.cosines.copy()
        wrong[np.arange(len(self.truth)), self.truth] = -np.inf
        given: npt.NDArray[np.int64] = np.where(self.ranks == 1, self.truth, wrong.argmax(axis=1))
        return given

    def nearest(self, picture: int, count: int = AT) -> list[tuple[int, float]]:
        """The nearest names of a picture, with their cosines."""
        order = (-self.cosines[picture]).argsort(kind="stable")[:count]
        return [(int(each), float(self.cosines[picture, each])) for each in order]

    def scores(self) -> dict[str, Figure]:
        """Each of `METRICS`."""
        once = np.ones((1, len(self.truth)), np.float32)
        times = np.random.default_rng(20261126).multinomial(
            len(self.truth), np.full(len(self.truth), 1 / len(self.truth)), size=RESAMPLES
        )
        value, resampled = self._scores(once)[0], self._scores(times.astype(np.float32))
        low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
        return {name: Figure(float(value[at]), float(low[at]), float(high[at])) for at, name in enumerate(METRICS)}

    def majority(self) -> dict[str, float]:
        """The same of the most frequent classes of these pictures, in the order of their frequency."""
        counts = np.bincount(self.truth, minlength=len(self.names))
        by_frequency = np.broadcast_to(counts - np.arange(len(counts)) / len(counts), self.cosines.shape)
        always = ZeroShot(by_frequency.astype(np.float32), self.truth, self.names)
        once = np.ones((1, len(self.truth)), np.float32)
        return dict(zip(METRICS, always._scores(once)[0].tolist(), strict=True))

    def confusions(self, most: int = 10) -> list[Confusion]:
        """The most frequent wrong answers, by the class that is right."""
        pairs = self.truth * len(self.names) + self.given
        found, counts = np.unique(pairs[self.given != self.truth], return_counts=True)
        first = (-counts).argsort(kind="stable")[:most]
        return [
            Confusion(self.names[pair // len(self.names)], self.names[pair % len(self.names)], count)
            for pair, count in zip(found[first].tolist(), counts[first].tolist(), strict=True)
        ]

    def _scores(self, times: npt.NDArray[np.float32]) -> Floats:
        """`METRICS` in each resample: [resamples, 4]. `times` each picture occurs in it: [resamples, pictures]."""
        there = np.unique(self.truth)
        true = (self.truth[:, None] == there).astype(np.float32)
        given = (self.given[:, None] == there).astype(np.float32)
        hit, total = (self.ranks == 1).astype(np.float32), times.sum(axis=1)
        support, right = times @ true, times @ (true * hit[:, None])
        recall = _ratio(right, support)
        f1 = _ratio(2 * right, support + times @ given)
        drawn = np.maximum((support > 0).sum(axis=1), 1)
        columns: list[Any] = [
            times @ hit / total,
            times @ (self.ranks <= AT).astype(np.float32) / total,
            recall.sum(axis=1) / drawn,
            f1.sum(axis=1) / drawn,
        ]
        return np.stack(columns, axis=1).astype(np.float64)


def _ratio(over: Any, under: Any) -> Floats:
    ratio: Floats = np.divide(over, under, out=np.zeros(np.shape(over)), where=under > 0)
    return ratio
