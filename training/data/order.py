"""The order in which pairs train: every epoch another permutation, by the seed and the step alone."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.errors import TrainingError
from training.data import copies

VERSION = 1

Rows = npt.NDArray[np.int64]


class Drawn(NamedTuple):
    """The pairs of a step, by their rows, and the version of each that is seen: int64 [batch]. Steps count from 0."""

    step: int
    rows: Rows
    versions: Rows


@dataclass(frozen=True)
class Order:
    """Batches of `batch` of the `rows`, each with one of `versions`. What an epoch leaves over is left out.

    A row that is there twice is seen twice in an epoch; with `apart`, in different batches as far as `copies.apart`
    finds room. A step needs no state of those before it, so that a run resumes anywhere. Raises TrainingError for a
    batch that is larger than the pool.
    """

    rows: Rows
    batch: int
    seed: int
    versions: int = 1
    apart: bool = False

    def __post_init__(self) -> None:
        if self.batch > len(self.rows):
            raise TrainingError(
                f"a batch of {self.batch:,} pairs is larger than the pool of {len(self.rows):,}: lower batch"
            )

    @property
    def epoch(self) -> int:
        """The number of steps of an epoch."""
        return len(self.rows) // self.batch

    def steps(self, numbers: range) -> Iterator[Drawn]:
        """The batches of these steps."""
        permuted = lru_cache(1)(self._permuted)
        for step in numbers:
            epoch, place = divmod(step, self.epoch)
            rows = permuted(epoch)[place * self.batch : (place + 1) * self.batch]
            versions = np.random.default_rng([self.seed, VERSION, 1, step]).integers(self.versions, size=self.batch)
            yield Drawn(step, rows, versions)

    def _permuted(self, epoch: int) -> Rows:
        rows = np.random.default_rng([self.seed, VERSION, 0, epoch]).permutation(self.rows)
        return copies.apart(rows, self.batch) if self.apart else rows
