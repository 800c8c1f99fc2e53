"""How good predictions are, by kind of task, and bootstrap intervals of differences between trials."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

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
