"""Confident learning: which labels a learner contradicts that did not see them (Northcutt, Jiang, Chuang 2021).

"Confident Learning: Estimating Uncertainty in Dataset Labels", JAIR 70, arXiv 1911.00068, section 3.1. The learner is
multinomial logistic regression on standardised vectors, by L-BFGS.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pipeline.models.device import one_thread

if TYPE_CHECKING:
    from torch import Tensor

DECAYS = (1.0, 0.1, 0.01, 0.001)
"""Weights of the squared norm that are tried. The one with the least held-out log loss is taken."""

ROUNDS = 100
"""Iterations of L-BFGS, at most."""

LEARNT = 50_000
"""Vectors that a fold's learner is fitted to, at most."""

Labels = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float16] | npt.NDArray[np.float32]
Probabilities = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Findings:
    """Of each label its probability, 0 to 1, whether it is contradicted, and the label that is expected in its place.

    `suggested` is the label itself where it is not contradicted.
    """

    quality: Probabilities
    contradicted: npt.NDArray[np.bool_]
    suggested: Labels


def held_out_probabilities(vectors: Vectors, labels: Labels, fold: Labels, classes: int) -> Iterator[Probabilities]:
    """For each of `DECAYS` the probabilities of all classes [n, classes], each row by the learners of other folds.

    Every class must have a label in every set of all folds but one. The same rows in the same order give the same bits.
    """
    for decay in DECAYS:
        found = np.zeros((len(labels), classes), np.float32)
        for number in np.unique(fold).tolist():
            rows = np.flatnonzero(fold != number)[:LEARNT]
            out = np.flatnonzero(fold == number)
            found[out] = _predicted(vectors, rows, labels[rows], out, classes, decay)
        yield found


def best(tried: Iterator[Probabilities], labels: Labels) -> Probabilities:
    """Of several predictions the one with the least log loss of the labels; of equals the first."""
    rows = np.arange(len(labels))
    return min(tried, key=lambda found: float(-np.log(np.maximum(found[rows, labels], 1e-12)).mean()))


def findings(probabilities: Probabilities, labels: Labels) -> Findings:
    """Compare labels with held-out probabilities [n, classes].

    The threshold of a class is the mean probability of it among the rows with its label. A label is contradicted if
    another class has the highest probability of those that reach their thresholds: the confident joint.
    """
    rows = np.arange(len(labels))
    given = probabilities[rows, labels]
    counts = np.bincount(labels, minlength=probabilities.shape[1])
    thresholds = np.bincount(labels, given.astype(np.float64), probabilities.shape[1]) / np.maximum(counts, 1)
    confident = (probabilities >= thresholds) & (counts > 0)
    expected = np.where(confident, probabilities, -1).argmax(axis=1)
    suggested = np.where(confident.any(axis=1), expected, labels)
    return Findings(given, suggested != labels, suggested)


def _predicted(
    vectors: Vectors, rows: Labels, labels: Labels, out: Labels, classes: int, decay: float
) -> Probabilities:
    import torch

    with one_thread():
        seen = torch.from_numpy(vectors[rows].astype(np.float32))
        mean, deviation = seen.mean(dim=0), seen.std(dim=0).clamp_min(1e-6)
        weights, bias = _fitted((seen - mean) / deviation, torch.from_numpy(labels), classes, decay)
        with torch.inference_mode():
            wide = (torch.from_numpy(vectors[out].astype(np.float32)) - mean) / deviation
            found: Probabilities = (wide @ weights + bias).softmax(dim=1).numpy()
    return found


def _fitted(vectors: "Tensor", labels: "Tensor", classes: int, decay: float) -> "tuple[Tensor, Tensor]":
    """Weights [dim, classes] and bias of the least mean log loss plus decay / 2 times the squared weights."""
    import torch

    weights = torch.zeros(vectors.shape[1], classes, requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    descent = torch.optim.LBFGS([weights, bias], max_iter=ROUNDS, line_search_fn="strong_wolfe")

    def loss() -> float:
        descent.zero_grad()
        value = torch.nn.functional.cross_entropy(vectors @ weights + bias, labels) + decay / 2 * (weights**2).sum()
        value.backward()  # type: ignore[no-untyped-call]
        return float(value.detach())

    descent.step(loss)  # type: ignore[no-untyped-call]
    return weights.detach(), bias.detach()
