"""Scores of a single-label classification, and bootstrap intervals of their differences."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

RESAMPLES = 4000
"""Bootstrap resamples behind an interval."""

LEVEL = 0.95
"""What share of the resamples an interval holds."""

SAYS = f"paired bootstrap over seeds, each with its own draw of the pool, and test pictures; {RESAMPLES} resamples"
"""How intervals were made, for a person."""

Labels = npt.NDArray[np.int16]
Floats = npt.NDArray[np.float64]


def scores(truth: Labels, predicted: Labels, classes: Sequence[Any]) -> dict[str, Any]:
    """f1_macro, f1_micro, precision_macro, recall_macro, accuracy, and per_class: precision, recall, f1, support.

    A class that is never predicted has precision 0. In a single-label task micro-F1 equals accuracy.
    """
    numbers = np.arange(len(classes))
    right = _counts(truth[truth == predicted], numbers)
    support, chosen = _counts(truth, numbers), _counts(predicted, numbers)
    precision, recall = _ratio(right, chosen), _ratio(right, support)
    f1 = _ratio(2 * right, chosen + support)
    accuracy = float(np.mean(truth == predicted))
    return {
        "f1_macro": float(f1.mean()),
        "f1_micro": accuracy,
        "precision_macro": float(precision.mean()),
        "recall_macro": float(recall.mean()),
        "accuracy": accuracy,
        "per_class": {
            name: {"precision": float(p), "recall": float(r), "f1": float(f), "support": int(s)}
            for name, p, r, f, s in zip(classes, precision, recall, f1, support, strict=True)
        },
    }


@dataclass(frozen=True)
class Mean:
    """Mean macro-F1 over seeds: `point` as measured, and in each resample, [resamples]."""

    point: float
    resampled: Floats


@dataclass(frozen=True)
class Interval:
    """A difference of mean macro-F1 over seeds, and the bootstrap interval around it, which holds `level` of them.

    `relative` is the difference in parts of the second mean, None where that is 0; its bounds are None where it is 0
    in some resample.
    """

    level: float
    difference: float
    low: float
    high: float
    relative: float | None
    relative_low: float | None
    relative_high: float | None


def corrected(compared: int) -> float:
    """The level of each of several intervals at which all of them together hold LEVEL (Bonferroni)."""
    return 1 - (1 - LEVEL) / max(compared, 1)


def difference(better: Mean, worse: Mean, level: float = LEVEL) -> Interval:
    """Of two means of one bootstrap."""
    relative = better.point / worse.point - 1 if worse.point > 0 else None
    low, high = _bounds(better.resampled - worse.resampled, level)
    divides = (worse.resampled > 0).all()
    bounds = _bounds(better.resampled / worse.resampled - 1, level) if divides else (None, None)
    return Interval(level, better.point - worse.point, low, high, relative, *bounds)


def interaction(both: Mean, first: Mean, second: Mean, neither: Mean) -> Interval:
    """How much more the first factor adds with the second than without it: (both - second) - (first - neither)."""
    resampled = (both.resampled - second.resampled) - (first.resampled - neither.resampled)
    point = (both.point - second.point) - (first.point - neither.point)
    return Interval(LEVEL, point, *_bounds(resampled, LEVEL), None, None, None)


class Bootstrap:
    """Resamples of seeds and of test pictures together, the same ones for everything that is compared.

    Only the spread over seeds and pictures is in an interval: with few seeds it is somewhat too narrow.
    """

    def __init__(self, truth: Labels, classes: int, seeds: int, resamples: int = RESAMPLES) -> None:
        generator = np.random.default_rng(20261121)
        self._truth, self._classes, self._seeds = truth, classes, seeds
        pictures, drawn = np.full(len(truth), 1 / len(truth)), np.full(seeds, 1 / seeds)
        self._pictures = generator.multinomial(len(truth), pictures, size=resamples).astype(np.float32)
        self._drawn = generator.multinomial(seeds, drawn, size=resamples) / seeds
        self._support = self._pictures @ _one_hot(truth, classes)

    def mean(self, predicted: npt.NDArray[np.int16]) -> Mean:
        """Of predictions [seeds, pictures], paired by seed with all others."""
        return Mean(float(np.mean([self._f1(row) for row in predicted])), self._means(predicted))

    def _f1(self, predicted: Labels) -> float:
        value: float = scores(self._truth, predicted, range(self._classes))["f1_macro"]
        return value

    def _means(self, predicted: npt.NDArray[np.int16]) -> Floats:
        """Mean macro-F1 over each resample's seeds, on its pictures: [resamples]."""
        by_seed = np.stack([self._resampled(row) for row in predicted], axis=1)
        mean: Floats = (by_seed * self._drawn).sum(axis=1)
        return mean

    def _resampled(self, predicted: Labels) -> Floats:
        chosen = _one_hot(predicted, self._classes)
        right = chosen * (predicted == self._truth)[:, None]
        f1 = _ratio(2 * (self._pictures @ right), self._pictures @ chosen + self._support)
        mean: Floats = f1.mean(axis=1)
        return mean


def _bounds(values: Floats, level: float) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _one_hot(labels: Labels, classes: int) -> npt.NDArray[np.float32]:
    hot: npt.NDArray[np.float32] = (labels[:, None] == np.arange(classes)).astype(np.float32)
    return hot


def _counts(labels: Labels, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    counts: npt.NDArray[np.int64] = (labels[:, None] == numbers).sum(axis=0)
    return counts


def _ratio(over: npt.NDArray[Any], under: npt.NDArray[Any]) -> Floats:
    """0 where there is nothing to divide by."""
    made: Floats = np.divide(over, under, out=np.zeros(np.shape(over)), where=np.asarray(under) > 0)
    return made
