"""Which pairs train the model of a fold, for cross-fitting by shard (`pipeline.scorers.cross_fitted`)."""

import numpy as np
import numpy.typing as npt

from pipeline.errors import TrainingError
from pipeline.neighbours import hamming
from training.data.near_duplicates import NEAR


def scores(fold: int, folds: int, shards: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Which pairs the model of the fold scores, by the number of their shard: [pairs]."""
    scored: npt.NDArray[np.bool_] = shards % folds == fold
    return scored


def trains(
    fold: int, folds: int, shards: npt.NDArray[np.int64], sha256: npt.NDArray[np.str_], phash: hamming.Hashes
) -> npt.NDArray[np.bool_]:
    """Which pairs may train the model of the fold: [pairs]. The arrays, [pairs], cover all downloaded pairs.

    A picture that occurs in a shard that the model scores trains it nowhere: the same sha256, or a perceptual hash
    within NEAR bits. Raises TrainingError if a fold has nothing to score, or nothing to train on.
    """
    scored = scores(fold, folds, shards)
    same = np.isin(sha256, sha256[scored])
    bits, _ = hamming.nearest_targets(phash, np.unique(phash[scored]), NEAR)
    allowed: npt.NDArray[np.bool_] = ~scored & ~same & (bits > NEAR)
    if not scored.any() or not allowed.any():
        held = len(np.unique(shards))
        raise TrainingError(
            f"fold {fold} of {folds} has no pair to {'train on' if scored.any() else 'score'}: the pairs are in {held} "
            f"shard{'s' if held != 1 else ''}; use fewer folds, or set a smaller download.shard_size for a new store"
        )
    return allowed
