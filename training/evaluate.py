"""How good predictions are, by kind of task, and bootstrap intervals of differences between trials."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

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
Units = npt.NDArray[np.float32]
"""L2-normalised rows."""

Predicted = npt.NDArray[Any]
"""What a learner said of each held-out picture."""


class Measure(Protocol):
    """What is scored on the held-out pictures. The first of `metrics`, names in words by key, is what is compared."""

    @property
    def metrics(self) -> Mapping[str, str]:
        """By the name of a score, what a person calls it."""

    def scores(self, predicted: Predicted) -> dict[str, Any]:
        """Each of `metrics`, and for classes `per_class`."""

    def resampled(self, predicted: Predicted, times: npt.NDArray[np.float32]) -> Floats:
        """What is compared, [resamples], where each picture is there so many `times`: [resamples, pictures]."""

    def baseline(self, targets: npt.NDArray[Any]) -> tuple[str, dict[str, float]]:
        """What a learner that looks at no picture would do, in words, and its `metrics`; by the targets of the pool."""


def main(measure: Measure) -> str:
    """The name of the score that is compared."""
    return next(iter(measure.metrics))


@dataclass(frozen=True)
class Single:
    """Single-label classification: `truth` and predictions are numbers of `classes`."""

    truth: npt.NDArray[Any]
    classes: Sequence[str]

    metrics: ClassVar[Mapping[str, str]] = {
        "f1_macro": "macro-F1",
        "f1_micro": "micro-F1",
        "precision_macro": "precision",
        "recall_macro": "recall",
        "accuracy": "accuracy",
    }

    def scores(self, predicted: Predicted) -> dict[str, Any]:
        """See `scores`."""
        return scores(self.truth, predicted, self.classes)

    def said(self, pictures: Units, names: Units) -> Predicted:
        """The class whose name lies nearest to each picture."""
        found: Predicted = (pictures @ names.T).argmax(axis=1).astype(np.int16)
        return found

    def resampled(self, predicted: Predicted, times: npt.NDArray[np.float32]) -> Floats:
        """Macro-F1."""
        truth, chosen = _one_hot(self.truth, len(self.classes)), _one_hot(predicted, len(self.classes))
        right = chosen * (predicted == self.truth)[:, None]
        f1 = _ratio(2 * (times @ right), times @ chosen + times @ truth)
        mean: Floats = f1.mean(axis=1)
        return mean

    def baseline(self, targets: npt.NDArray[Any]) -> tuple[str, dict[str, float]]:
        """Always the commonest class of the pairs that name one."""
        commonest = int(np.bincount(targets[targets >= 0], minlength=len(self.classes)).argmax())
        found = self.scores(np.full_like(self.truth, commonest))
        return f"always {self.classes[commonest]}", {name: found[name] for name in self.metrics}


@dataclass(frozen=True)
class Regression:
    """A number: R2 is 1 for exact predictions, 0 for always saying the mean of the truth, and has no lower end."""

    truth: npt.NDArray[Any]

    metrics: ClassVar[Mapping[str, str]] = {"r2": "R2", "mae": "mean absolute error"}

    def scores(self, predicted: Predicted) -> dict[str, Any]:
        """r2, mae."""
        once = np.ones((1, len(self.truth)), np.float32)
        return {"r2": float(self.resampled(predicted, once)[0]), "mae": float(np.abs(predicted - self.truth).mean())}

    def resampled(self, predicted: Predicted, times: npt.NDArray[np.float32]) -> Floats:
        """R2; 0 for a resample in which the truth does not vary."""
        exactly = times.astype(np.float64)
        count, truth = exactly.sum(axis=1), self.truth - self.truth.mean()
        missed = exactly @ (predicted - self.truth) ** 2
        spread = exactly @ truth**2 - (exactly @ truth) ** 2 / count
        varies = spread > 1e-12 * count
        r2: Floats = np.where(varies, 1 - missed / np.where(varies, spread, 1.0), 0.0)
        return r2

    def baseline(self, targets: npt.NDArray[Any]) -> tuple[str, dict[str, float]]:
        """Always the mean."""
        mean = float(targets.mean())
        return f"always {mean:.4g}", self.scores(np.full_like(self.truth, mean))


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
    """What is compared, its mean over seeds: `point` as measured, and in each resample, [resamples]."""

    point: float
    resampled: Floats


@dataclass(frozen=True)
class Interval:
    """A difference of means over seeds, and the bootstrap interval around it, which holds `level` of them.

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

    def __init__(self, measure: Measure, pictures: int, seeds: int, resamples: int = RESAMPLES) -> None:
        generator = np.random.default_rng(20261121)
        self._measure = measure
        each, drawn = np.full(pictures, 1 / pictures), np.full(seeds, 1 / seeds)
        self._times = generator.multinomial(pictures, each, size=resamples).astype(np.float32)
        self._drawn = generator.multinomial(seeds, drawn, size=resamples) / seeds

    def mean(self, predicted: Predicted) -> Mean:
        """Of predictions [seeds, pictures], paired by seed with all others."""
        name = main(self._measure)
        by_seed = np.stack([self._measure.resampled(row, self._times) for row in predicted], axis=1)
        point = float(np.mean([self._measure.scores(row)[name] for row in predicted]))
        return Mean(point, (by_seed * self._drawn).sum(axis=1))


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
