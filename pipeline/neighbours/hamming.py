"""Near neighbours among 64-bit hashes: pairs with a Hamming distance within a radius, exactly.

Two hashes that differ in r bits are equal in at least m - r of m blocks of bits. For every choice of m - r blocks, the
hashes are sorted by these bits, and those with equal bits are compared (Manku et al. 2007, "Detecting near-duplicates
for web crawling").
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from math import comb, log2

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]

BITS = 64
LONGEST = 2000
"""If more hashes than this share a choice of blocks, each is compared only with the next `LONGEST`."""


_NONE: Hashes = np.empty(0, np.uint64)
_MERGED = 1_000_000
_COMPARED = 1 << 22
_NO_TARGET = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Edges:
    """Pairs of distinct hashes, `low` < `high`, sorted, and the bits in which they differ.

    `capped` counts the comparisons that were left out because too many hashes shared the same blocks: above 0, edges
    may be missing inside such a crowd.
    """

    low: Hashes
    high: Hashes
    distance: npt.NDArray[np.uint8]
    capped: int

    def __len__(self) -> int:
        return len(self.low)


def within(hashes: Hashes, radius: int, tell: Callable[[int, int], None] = lambda done, total: None) -> Edges:
    """All pairs of hashes that differ in at most `radius` bits. The hashes are sorted and distinct.

    `tell` gets the numbers of finished and of all sortings. It takes about 60 bytes a hash and 16 an edge.
    """
    blocks = _blocks(len(hashes), radius)
    choices = list(combinations(range(blocks), blocks - radius))
    found, fresh, capped = _NONE, [_NONE], 0
    for done, choice in enumerate(choices, start=1):
        pairs, left_out = _sharing(hashes, _mask(blocks, choice), radius)
        fresh.append(pairs)
        capped += left_out
        if sum(map(len, fresh)) > max(len(found), _MERGED) or done == len(choices):
            found, fresh = np.unique(np.concatenate([found, *fresh])), []
        tell(done, len(choices))
    low, high = (hashes[each] for each in np.divmod(found, np.uint64(max(len(hashes), 1))))
    return Edges(low, high, np.bitwise_count(low ^ high), capped)


def nearest_targets(
    hashes: Hashes, targets: Hashes, radius: int, tell: Callable[[int, int], None] = lambda done, total: None
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """For each hash the Hamming distance to the nearest target and the index of that target, the first of equals.

    255 and -1 if no target is within `radius`. Nothing is left out. `tell` gets the numbers of finished and of all
    sortings.
    """
    blocks = _blocks(len(hashes), radius, len(targets))
    choices = list(combinations(range(blocks), blocks - radius))
    best = np.full(len(hashes), _NO_TARGET)
    for done, choice in enumerate(choices, start=1):
        mask = _mask(blocks, choice)
        order = np.argsort(hashes & mask)
        shared = hashes[order] & mask
        first, last = (np.searchsorted(shared, targets & mask, side) for side in ("left", "right"))
        behind = np.cumsum(last - first)
        start = 0
        while start < len(targets):
            before = behind[start - 1] if start else 0
            end = max(int(np.searchsorted(behind, before + _COMPARED)), start + 1)
            counts = (last - first)[start:end]
            target = np.repeat(np.arange(start, end), counts)
            place = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
            row = order[np.repeat(first[start:end], counts) + place]
            bits = np.bitwise_count(hashes[row] ^ targets[target])
            near = bits <= radius
            np.minimum.at(best, row[near], bits[near].astype(np.int64) * len(targets) + target[near])
            start = end
        tell(done, len(choices))
    found = best < _NO_TARGET
    bits, target = np.divmod(best, max(len(targets), 1))
    return np.where(found, bits, 255).astype(np.uint8), np.where(found, target, -1)


def _blocks(hashes: int, radius: int, targets: int | None = None) -> int:
    """The number of blocks with the least work: few blocks give large crowds, many give many sortings.

    The hashes are compared with `targets` targets, or with one another.
    """
    others = hashes if targets is None else targets

    def work(blocks: int) -> float:
        shared = BITS * (blocks - radius) / blocks
        return comb(blocks, radius) * (hashes * log2(hashes + 2) + hashes * others / 2**shared)

    return min(range(radius + 1, min(radius + 6, BITS) + 1), key=work) if radius < BITS else BITS


def _mask(blocks: int, choice: tuple[int, ...]) -> np.uint64:
    edges = [BITS * block // blocks for block in range(blocks + 1)]
    return np.uint64(sum((1 << edges[block + 1]) - (1 << edges[block]) for block in choice))


def _sharing(hashes: Hashes, mask: np.uint64, radius: int) -> tuple[Hashes, int]:
    """The pairs within the radius among hashes with equal bits under the mask, and the number of comparisons left out.

    A pair of positions i < j is the number i * len(hashes) + j.
    """
    order = np.argsort(hashes & mask, kind="stable").astype(np.uint64)
    ordered = hashes[order]
    shared = ordered & mask
    starts = np.flatnonzero(np.append(True, shared[1:] != shared[:-1]))
    sizes = np.diff(np.append(starts, len(hashes)))
    behind = np.repeat(starts + sizes, sizes) - np.arange(len(hashes)) - 1  # later members of the crowd, by hash
    here = np.flatnonzero(behind)
    found = []
    for step in range(1, LONGEST + 1):
        here = here[behind[here] >= step]
        if not len(here):
            break
        near = here[np.bitwise_count(ordered[here] ^ ordered[here + step]) <= radius]
        one, other = order[near], order[near + step]
        found.append(np.minimum(one, other) * np.uint64(len(hashes)) + np.maximum(one, other))
    return np.concatenate([_NONE, *found]), int(np.maximum(behind - LONGEST, 0).sum())
