"""Near-duplicates by perceptual hashes: excluded from training, and kept on one side of a split."""

import hashlib

import numpy as np
import numpy.typing as npt

from pipeline.neighbours import groups, hamming
from pipeline.settings.task import Split

NEAR = 4
"""The largest Hamming distance, of 64 bits, at which two pictures count as the same."""

LEAK_RULE = (
    f"a pair is left out of every arm if its picture has the sha256 of a held-out one, "
    f"or a perceptual hash (pHash, 64 bits) within {NEAR} bits of a held-out one's"
)


def near_any(
    hashes: npt.NDArray[np.uint64], others: npt.NDArray[np.uint64], within: int = NEAR
) -> npt.NDArray[np.bool_]:
    """Which of `hashes` are at a Hamming distance of at most `within` from any of `others`: [hashes]."""
    distinct, back = np.unique(hashes, return_inverse=True)
    near = np.zeros(len(distinct), bool)
    for other in np.unique(others):
        near |= np.bitwise_count(distinct ^ other) <= within
    return near[back]


def split_off(hashes: npt.NDArray[np.uint64], split: Split) -> npt.NDArray[np.bool_]:
    """Which pictures, by their hashes, are held out. All pictures of a chain of near-duplicates are on the same side.

    The seed and the lowest hash of the chain decide the side, so pictures outside the chain do not change it.
    """
    distinct, back = np.unique(hashes, return_inverse=True)
    edges = hamming.within(distinct, NEAR)
    ends = np.searchsorted(distinct, edges.low), np.searchsorted(distinct, edges.high)
    chain = groups.connected(len(distinct), *ends)
    lowest = np.full(len(np.unique(chain)), np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(lowest, chain, distinct)
    draws = [int.from_bytes(hashlib.sha256(f"{split.seed}:{each}".encode()).digest()[:8], "big") for each in lowest]
    held: npt.NDArray[np.bool_] = (np.array(draws, np.float64) < split.share * 2**64)[chain][back]
    return held
