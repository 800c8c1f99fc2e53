"""Soft cap sampling (M-FLYT, Shechter and Carmon 2025, arXiv 2503.08805): samples by score, with repetition.

Published: a batch is drawn without replacement by the softmax of the scores, a penalty is subtracted from the scores of
what was drawn, and so on to the budget. To draw without replacement by weights is a race: each pair has an exponential
waiting time of its weight, and the first of them to be due are drawn. A waiting time has no memory. So a pair that was
not drawn may keep its time over the next batch, and only drawn pairs get a new one. The samples have the published
distribution, and a batch costs little more than its own size.

The times of a pair are hashed from its uid and from how often it was drawn. So the order of pairs does not matter.
"""

import numpy as np
import numpy.typing as npt

from filters.selections import SoftCap
from pipeline.errors import RecipeError
from pipeline.selection.survivors import MOST_COPIES, Chosen, Copies, Survivors
from pipeline.uids import fractions, random_bits

PUBLISHED = 1280
"""Batches: M-FLYT draws 128 million samples, 100,000 at a time."""

AHEAD = 32
"""Batches that are looked for at once among all pairs."""

Floats = npt.NDArray[np.float64]
Bits = npt.NDArray[np.uint64]
Rows = npt.NDArray[np.int64]


def choose(selection: SoftCap, survivors: Survivors) -> Chosen:
    """Draw the samples. Raises RecipeError if a pair would be repeated more often than `MOST_COPIES` times."""
    t = selection.temperature
    with np.errstate(over="ignore"):
        scores = survivors.values["by"] / t
    unknown = ~np.isfinite(scores)
    known = np.flatnonzero(~unknown)
    samples = selection.samples(survivors.pool, len(known))
    if samples > MOST_COPIES * len(known) > 0:
        raise RecipeError(
            f"selection: {samples:,} samples of {len(known):,} pairs would repeat one more than {MOST_COPIES:,} times: "
            "lower the budget"
        )
    copies = np.zeros(len(survivors), np.uint16)
    if len(known):
        seeds = random_bits("soft_cap", (survivors.uids[row] for row in known.tolist()))
        batch = selection.batch or -(-samples // PUBLISHED)
        copies[known] = draw(scores[known], selection.penalty / t, samples, batch, seeds)
    return Chosen(copies, unknown)


def draw(scores: Floats, penalty: float, samples: int, batch: int, seeds: Bits) -> Copies:
    """How many times each row is drawn: uint16 [rows], of the sum `samples`.

    `scores` are logarithms of weights, `seeds` 64 random bits for each row. Raises RecipeError as `choose`.
    """
    # Times are logarithms, because weights of e^1000 are possible.
    copies = np.zeros(len(scores), np.int64)
    due = _log_waiting(seeds, copies) - scores
    while (left := samples - int(copies.sum())) > 0:
        near = _first(due, min(AHEAD * batch, len(due)), seeds)
        horizon = due[near].max()
        while left > 0:
            near = near[due[near] <= horizon]
            size = min(batch, left, len(scores))
            if len(near) < size:  # rows that are not near may be due as well
                break
            drawn = near[_first(due[near], size, seeds[near])]
            now = due[drawn].max()
            copies[drawn] += 1
            waiting = _log_waiting(seeds[drawn], copies[drawn]) - (scores[drawn] - penalty * copies[drawn])
            due[drawn] = np.logaddexp(now, waiting)
            left -= size
    if copies.max(initial=0) > MOST_COPIES:
        raise RecipeError(
            f"selection: a pair would be repeated {copies.max():,} times, and {MOST_COPIES:,} are the most: raise the "
            "penalty"
        )
    return copies.astype(np.uint16)


def _log_waiting(seeds: Bits, copies: Rows) -> Floats:
    """The logarithm of an exponential waiting time of mean 1 for each row, after it was drawn `copies` times."""
    uniform = 1 - fractions(_mixed(seeds + copies.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)))
    # 1 - 2^-53 at most, so that the time is above 0
    found: Floats = np.log(-np.log(np.minimum(uniform, 1 - 2.0**-53)))
    return found


def _mixed(bits: Bits) -> Bits:
    """The finalizer of SplitMix64 (Steele et al. 2014): bits that look independent for consecutive inputs."""
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def _first(due: Floats, size: int, seeds: Bits) -> Rows:
    """The places of the `size` rows that are due first, in no order. Rows due at the same time: by seed."""
    if size >= len(due):
        return np.arange(len(due))
    last = np.partition(due, size - 1)[size - 1]
    before, at = np.flatnonzero(due < last), np.flatnonzero(due == last)
    return np.concatenate([before, at[np.argsort(seeds[at], kind="stable")[: size - len(before)]]])
