"""The order of the pairs of an epoch, and the part of it that one worker of one rank reads.

Shards are shuffled, and their pairs are put in a row. Ranks take parts of that row that follow each other, and their
workers parts of those, so that no pair is lost or repeated, and a tar at a border is read by two. Inside its part a
worker moves each pair back by a random distance below the size of the buffer. All of it is arithmetic on numbers of
pairs, so that a stream can go on anywhere without reading what came before.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from winnow.torch.draws import PLACES, SHARDS, draws
from winnow.torch.selection import Numbers, Selection

Uneven = Literal["keep", "drop", "repeat"]
"""What happens to the pairs left over if ranks do not divide an epoch."""


@dataclass(frozen=True)
class Share:
    """One worker of a rank. `batch_size` is that of the loader: only the last worker of a rank has a smaller batch."""

    rank: int = 0
    world: int = 1
    worker: int = 0
    workers: int = 1
    uneven: Uneven = "keep"
    batch_size: int = 1

    def of_rank(self, total: int) -> tuple[int, int]:
        """The part of `total` pairs that the rank reads: from, until. Past `total` the first pairs are repeated."""
        whole = self.of_all(total)
        return whole * self.rank // self.world, whole * (self.rank + 1) // self.world

    def of_all(self, total: int) -> int:
        """How many pairs all ranks read of `total`, repeated ones included."""
        if self.uneven == "keep" or total % self.world == 0:
            return total
        return total - total % self.world + (self.world if self.uneven == "repeat" else 0)

    def of_worker(self, total: int) -> tuple[int, int]:
        """The part of it that the worker reads."""
        start, stop = self.of_rank(total)
        batches = -(-(stop - start) // self.batch_size)
        first, last = (batches * n // self.workers for n in (self.worker, self.worker + 1))
        return start + first * self.batch_size, min(start + last * self.batch_size, stop)


@dataclass(frozen=True)
class Epoch:
    """The order of one epoch. `counts` is how often each pair occurs, or None for once each."""

    selection: Selection
    counts: Numbers | None
    seed: int
    epoch: int
    shuffle: bool
    buffer: int

    @property
    def total(self) -> int:
        """How many pairs all ranks read."""
        return len(self.selection) if self.counts is None else int(self.counts.sum())

    def arrivals(self, start: int, stop: int) -> Numbers:
        """The pairs at these places of the row, before the buffer: int64 [stop - start]."""
        total, found = self.total, []
        while start < stop and total:
            end = min(stop, (start // total + 1) * total)
            found.append(self._part(start % total, start % total + end - start))
            start = end
        return np.concatenate(found) if found else np.zeros(0, np.int64)

    def departures(self, arrivals: Numbers, start: int) -> Numbers:
        """The pairs as the buffer gives them. `start` is the place of the first one in the row."""
        if not self.shuffle or self.buffer <= 1:
            return arrivals
        places = np.arange(len(arrivals))
        drawn = draws((places + start).astype(np.uint64), PLACES, self.seed, self.epoch)
        return arrivals[np.argsort(places + drawn * self.buffer, kind="stable")]

    def _part(self, start: int, stop: int) -> Numbers:
        """As `arrivals`, with places below the total. Only the pairs of shards between them are put in a row."""
        order, bounds = self._shards(), self.selection.bounds
        ends = np.cumsum(self._sizes()[order])
        first, last = np.searchsorted(ends, [start, stop - 1], side="right")
        rows = [np.arange(bounds[shard], bounds[shard + 1]) for shard in order[first : last + 1]]
        if self.counts is not None:
            rows = [np.repeat(each, self.counts[each]) for each in rows]
        before = int(ends[first - 1]) if first else 0
        return np.concatenate(rows)[start - before : stop - before]

    def _sizes(self) -> Numbers:
        """How many pairs each shard has in this epoch."""
        bounds = self.selection.bounds
        return np.diff(bounds) if self.counts is None else np.add.reduceat(self.counts, bounds[:-1])

    def _shards(self) -> npt.NDArray[np.int64]:
        """The shards in the order of this epoch, by their places among those that have pairs."""
        numbers = self.selection.numbers
        if not self.shuffle:
            return np.arange(len(numbers))
        return np.argsort(draws(numbers.astype(np.uint64), SHARDS, self.seed, self.epoch), kind="stable")
