"""Scores of predictions, by kind of task."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.int16]
Floats = npt.NDArray[np.float64]
Units = npt.NDArray[np.float32]
"""L2-normalised rows."""

Predictions = npt.NDArray[Any]
"""What a learner predicts for each held-out picture."""


class Measure(Protocol):
    """What is scored on the held-out pictures. The first of `metrics` is the main one, which is compared."""

    @property
    def metrics(self) -> Mapping[str, str]:
        """The scores by key, each with its name for a person."""

    def scores(self, predictions: Predictions) -> dict[str, Any]:
        """Each of `metrics`, and for classes `per_class`."""

    def resampled(self, predictions: Predictions, times: npt.NDArray[np.float32]) -> Floats:
        """The main score in each resample: [resamples]. `times` each picture occurs in it: [resamples, pictures]."""

    def baseline(self, targets: npt.NDArray[Any]) -> tuple[str, dict[str, float]]:
        """What a learner that looks at no picture predicts, in words, and its scores; by the targets of the pool."""


def main_metric(measure: Measure) -> str:
    """The key of the score that is compared."""
    return next(iter(measure.metrics))


@dataclass(frozen=True)
class Classification:
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

    def scores(self, predictions: Predictions) -> dict[str, Any]:
        """As the function `scores`: means over classes, and `per_class`."""
        return scores(self.truth, predictions, self.classes)

    def predict(self, pictures: Units, prompts: Units) -> Predictions:
        """The class whose prompt is nearest to each picture, by cosine."""
        nearest: Predictions = (pictures @ prompts.T).argmax(axis=1).astype(np.int16)
        return nearest

    def resampled(self, predictions: Predictions, times: npt.NDArray[np.float32]) -> Floats:
        """Macro-F1 in each resample."""
        truth, chosen = _one_hot(self.truth, len(self.classes)), _one_hot(predictions, len(self.classes))
        correct = chosen * (predictions == self.truth)[:, None]
        f1 = _ratio(2 * (times @ correct), times @ chosen + times @ truth)
        mean: Floats = f1.mean(axis=1)
        return mean

    def baseline(self, targets: npt.NDArray[Any]) -> tuple[str, dict[str, float]]:
        """Always the most frequent class of the pairs that name one."""
        commonest = int(np.bincount(targets[targets >= 0], minlength=len(self.classes)).argmax())
        constant = self.scores(np.full_like(self.truth, commonest))
        return f"always {self.classes[commonest]}", {name: constant[name] for name in self.metrics}


@dataclass(frozen=True)
class Regression:
    """Numbers. R2 is 1 for exact predictions, 0 for always predicting the mean of the truth, and has no lower bound."""

    truth: npt.NDArray[Any]

    metrics: ClassVar[Mapping[str, str]] = {"r2": "R2", "mae": "mean absolute error"}

    def scores(self, predictions: Predictions) -> dict[str, Any]:
        """R2 and the mean absolute error."""
        once = np.ones((1, len(self.truth)), np.float32)
        return {
            "r2": float(self.resampled(predictions, once)[0]),
            "mae": float(np.abs(predictions - self.truth).mean()),
        }

    def resampled(self, predictions: Predictions, times: npt.NDArray[np.float32]) -> Floats:
        """R2 in each resample; 0 where the truth does not vary.

        That is decided by the variance of the whole truth, so that R2 does not depend on the unit of small numbers.
        """
        exactly = times.astype(np.float64)
        count, truth = exactly.sum(axis=1), self.truth - self.truth.mean()
        residual = exactly @ (predictions - self.truth) ** 2
        spread = exactly @ truth**2 - (exactly @ truth) ** 2 / count
        varies = spread > 1e-12 * count * min(1.0, float(np.mean(truth**2)))
        r2: Floats = np.where(varies, 1 - residual / np.where(varies, spread, 1.0), 0.0)
        return r2

    def baseline(self, targets: npt.NDArray[Any]) -> tuple[str, dict[str, float]]:
        """Always the mean of the pool."""
        mean = float(targets.mean())
        return f"always {mean:.4g}", self.scores(np.full_like(self.truth, mean))


def scores(truth: Labels, predictions: Labels, classes: Sequence[Any]) -> dict[str, Any]:
    """f1_macro, f1_micro, precision_macro, recall_macro, accuracy, and per_class: precision, recall, f1, support.

    A class that is never predicted has precision 0. In a single-label task micro-F1 equals accuracy.
    """
    numbers = np.arange(len(classes))
    correct = _counts(truth[truth == predictions], numbers)
    support, chosen = _counts(truth, numbers), _counts(predictions, numbers)
    precision, recall = _ratio(correct, chosen), _ratio(correct, support)
    f1 = _ratio(2 * correct, chosen + support)
    accuracy = float(np.mean(truth == predictions))
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
    """0 where the denominator is 0."""
    ratio: Floats = np.divide(over, under, out=np.zeros(np.shape(over)), where=np.asarray(under) > 0)
    return ratio
