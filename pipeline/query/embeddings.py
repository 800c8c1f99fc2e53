"""The stored picture embeddings of a manifest's scorer, in ledger order. A row is known by its place among all rows."""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import StorageError
from pipeline.neighbours.nearest import Exact, Floats, Places, Vectors, exact_products, inner_products, nearest
from pipeline.process.machine import cores
from pipeline.store.storage import Storage

_PICTURE = 0


class PictureEmbeddings:
    """The embeddings that a scorer's stage stored, compared with one query [dim].

    All shards of the stage are here, also those whose pairs have left the source. Raises StorageError for a missing or
    damaged file.
    """

    def __init__(self, storage: Storage, stage: str, query: Floats) -> None:
        """`stage` is the name and the key of the scorer, such as "clip-1a2b3c4d"."""
        self._storage, self._stage, self._query = storage, stage, query
        scored = (Path(key) for key in storage.keys(f"scores/{stage}"))
        self.shards = sorted(int(path.stem) for path in scored if path.suffix == ".parquet")

    def nearest(self, count: int) -> tuple[Places, Exact]:
        """The places of the `count` nearest rows, nearest first, and their similarities; equals in ledger order."""
        products, _ = self._scan
        return nearest(products, count, len(self._query), self._exact)

    def uids(self, places: Places) -> list[tuple[int, str]]:
        """The shard and the uid of each place."""
        found: dict[int, tuple[int, str]] = {}
        for number, rows in self._by_shard(places):
            uids = self._uids(number).take(pa.array(rows)).to_pylist()
            at = (rows + self._scan[1][number]).tolist()
            found |= {place: (self.shards[number], uid) for place, uid in zip(at, uids, strict=True)}
        return [found[int(place)] for place in places]

    @cached_property
    def _scan(self) -> tuple[Floats, Places]:
        """The inner products of all rows, and where each shard begins among them; last, where the last one ends."""
        blocks = inner_products(lambda at: self._load(self.shards[at]), len(self.shards), self._query, cores())
        products = np.concatenate([np.empty(0, np.float32), *blocks])
        return products, np.cumsum([0, *map(len, blocks)])

    def _exact(self, places: Places) -> Exact:
        """Of places in ascending order."""
        parts = [
            exact_products(self._load(self.shards[number], mapped=True)[rows], self._query)
            for number, rows in self._by_shard(places)
        ]
        return np.concatenate(parts)

    def _by_shard(self, places: Places) -> Iterator[tuple[int, Places]]:
        """For each shard that has some of the places, which one of `shards` it is, and their rows in it, ascending."""
        _, starts = self._scan
        ascending = np.sort(places)
        numbers = np.searchsorted(starts, ascending, side="right") - 1
        which, first = np.unique(numbers, return_index=True)
        for number, inside in zip(which.tolist(), np.split(ascending, first[1:]), strict=True):
            yield number, inside - starts[number]

    def _load(self, shard: int, mapped: bool = False) -> Vectors:
        """float16 [rows, dim] of the shard, read whole; `mapped`, only the pages of the rows that are used."""
        key = f"embeddings/{self._stage}/{shard:05d}.npy"
        path = self._storage.fetch(key)
        try:
            stored: npt.NDArray[np.float16] = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
        except (ValueError, OSError, EOFError):
            raise _damaged(key) from None
        if stored.dtype != np.float16 or stored.ndim != 3 or stored.shape[1] != 2:
            raise _damaged(key)
        if stored.shape[2] != len(self._query):
            raise StorageError(f"{key} holds vectors of {stored.shape[2]} numbers, the model makes {len(self._query)}")
        return stored[:, _PICTURE]

    def _uids(self, number: int) -> pa.ChunkedArray:
        shard, starts = self.shards[number], self._scan[1]
        key = f"scores/{self._stage}/{shard:05d}.parquet"
        uids = pq.read_table(self._storage.fetch(key), columns=["uid"], partitioning=None)["uid"]
        if len(uids) != starts[number + 1] - starts[number]:
            raise _damaged(f"embeddings/{self._stage}/{shard:05d}.npy")
        return uids


def _damaged(key: str) -> StorageError:
    return StorageError(f"{key} is damaged: delete it, and `winnow curate` makes it again")
