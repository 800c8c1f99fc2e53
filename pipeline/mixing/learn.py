"""A mix of score columns, learned so that the mix of a fold has seen none of the fold's pairs.

Every fold is learned several times, on random halves of the reference pictures. The spread over such refits is about
the standard error of a mix that is learned from all of them (the delete-half jackknife), and the mix is their mean.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from pipeline.mixing import logistic, step
from pipeline.mixing.pairs import Floats, Pairs, Rows
from pipeline.mixing.standard import Standard
from pipeline.progress import StepProgress, silent_step

Method = Literal["step", "logistic"]


@dataclass(frozen=True)
class Mixture:
    """`weights` float64 [folds, refits, columns]: shares of the mix, whose sizes add up to 1 in every refit.

    `standards` has the mean and deviation of each column, by fold.
    """

    standards: tuple[Standard, ...]
    weights: Floats

    def score(self, columns: Floats, fold: Rows) -> npt.NDArray[np.float32]:
        """The mix of each pair of the pool [pairs, columns], by the weights of its fold: float32 [pairs]."""
        scores = np.empty(len(columns))
        for number, standard in enumerate(self.standards):
            rows = fold == number
            scores[rows] = standard(columns[rows]) @ self.weights[number].mean(axis=0)
        return scores.astype(np.float32)


def learn(
    pool: Pairs,
    reference: Pairs,
    method: Method = "step",
    refits: int = 10,
    folds: int = 2,
    progress: StepProgress = silent_step,
) -> Mixture:
    """The mix of the pool's columns for each fold, learned from the pairs of the other folds.

    `pool` should hold no pair of the reference. `logistic` needs the columns of the reference pairs, `step` only their
    embeddings.
    """
    standards, weights = [], []
    for fold in range(folds):
        others, clean = pool.outside_of(fold), reference.outside_of(fold)
        assert others.columns is not None
        standard = Standard.of(others.columns)
        columns, found = standard(others.columns), []
        for refit in range(refits):
            half, _ = clean.halves(refit)
            found.append(_shares(_weights(method, columns, others, half, standard, refit)))
            progress(fold * refits + refit + 1, folds * refits)
        standards.append(standard)
        weights.append(found)
    return Mixture(tuple(standards), np.array(weights))


def _weights(method: Method, columns: Floats, pool: Pairs, half: Pairs, standard: Standard, seed: int) -> Floats:
    if method == "step":
        return step.learn(columns, pool, half, seed)
    assert half.columns is not None
    return logistic.learn(columns, standard(half.columns))


def _shares(weights: Floats) -> Floats:
    total = np.abs(weights).sum()
    return weights / total if total else weights
