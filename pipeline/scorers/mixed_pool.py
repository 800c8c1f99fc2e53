"""The pairs of the pool that a mix is learned from, their folds, and the reference pairs among them."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import ModelError
from pipeline.mixing.pairs import Floats, Pairs, Rows
from pipeline.scorers import gathering, target_leaks
from pipeline.scorers.mixed_reference import UID, Reference
from pipeline.scorers.spec import Pool
from pipeline.settings.task import TestSet
from pipeline.uids import random_bits

SAMPLE = 20_000
"""Pairs that a mix is learned from, and compared on, at most. It has a few weights, so more pairs change nothing."""

LEAST = 20
"""The fewest pictures of a reference, and of a pool."""


@dataclass(frozen=True)
class Inside:
    """A reference of pairs of the pool, and what its pictures must not be in."""

    reference: Reference
    hashes: str | None
    test: TestSet | None

    def rows(self, pool: Pool) -> npt.NDArray[np.bool_]:
        """Which rows of the pool are reference pairs. Raises ModelError if none is, or one is in the test set."""
        named = self.reference.read()[UID].combine_chunks()
        found: npt.NDArray[np.bool_] = pc.is_in(pool.column("uid"), value_set=named).to_numpy()
        if not found.any():
            raise ModelError(
                f"none of the {len(named):,} uids of {self.reference.location.name} is a downloaded pair of this source"
            )
        if self.test is not None and self.hashes is not None:
            hashes = pool.column(f"{self.hashes}_phash").filter(pa.array(found)).drop_null().combine_chunks()
            target_leaks.refuse_hashes(self.reference.location, hashes.to_numpy(), self.test)
        return found


def folds(pool: Pool, count: int) -> Rows:
    """The fold of each row, drawn by the bytes of its picture."""
    return (random_bits("mixed", _pictures(pool)) % np.uint64(count)).astype(np.int64)


def learnable(pool: Pool, of: str, columns: Floats, fold: Rows, reference: Inside | Pairs) -> tuple[Pairs, Pairs]:
    """A sample of the pool without its reference pairs, and the reference pairs, both in the order of draws by uid.

    `columns` float64 [rows, columns] and `fold` are those of all rows. Rows without both embeddings or with a NaN are
    left out.
    """
    usable = gathering.present(pool, of, gathering.BOTH) & ~np.isnan(columns).any(axis=1)
    inside = reference.rows(pool) if isinstance(reference, Inside) else np.zeros(len(pool), bool)
    order = np.argsort(random_bits("mixed", pool.column("uid").to_pylist()), kind="stable")
    sampled = order[(usable & ~inside)[order]][:SAMPLE]
    rows = np.concatenate([sampled, order[(usable & inside)[order]]])
    embeddings = gathering.gather(pool, of, rows, gathering.BOTH)
    pictures = pa.array(_pictures(pool)).take(pa.array(rows)).dictionary_encode().indices
    every = Pairs(columns[rows], embeddings, pictures.to_numpy().astype(np.int64), fold[rows])
    place = np.arange(len(rows))
    clean = every.take(place[len(sampled) :]) if isinstance(reference, Inside) else reference
    return every.take(place[: len(sampled)]), clean


def check_enough(pool: Pairs, reference: Pairs, count: int) -> None:
    """Raises ModelError if a fold has too few pictures to learn from, or to compare with."""
    for name, pairs in (("reference", reference), ("pool", pool)):
        fewest = min(len(np.unique(pairs.outside_of(fold).pictures)) for fold in range(count))
        if fewest < LEAST:
            raise ModelError(
                f"a fold can learn from {fewest} pictures of the {name} with embeddings and all columns, and needs "
                f"{LEAST}: add some, or remove the scorer"
            )
    fewest = min(int((pool.fold == fold).sum()) for fold in range(count))
    if fewest < LEAST:
        raise ModelError(f"a fold has {fewest} pairs of the pool, and needs {LEAST}: set folds to a lower number")


def _pictures(pool: Pool) -> list[str]:
    found: list[str] = pc.coalesce(pool.column("sha256"), pool.column("url")).to_pylist()
    return found
