"""Stored embeddings, aligned with the rows of a manifest, read from disk where they are used."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import ModelError, StorageError
from pipeline.manifest.document import StageKeys
from pipeline.store.storage import Storage

Vectors = npt.NDArray[np.float16]

_OPEN = 256
"""Files that are mapped at the same time, at most."""


@dataclass(frozen=True)
class Side:
    """The embeddings of pictures or of captions: `side[rows]` is float16 [rows, dim]. `numpy.asarray(side)` reads all.

    `rows` is an integer, a slice, an array of integers, or a mask. The vectors have length 1; a row that was not scored
    is NaN.
    """

    of: "Embeddings"
    place: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and dimensions."""
        return len(self.of), self.of.dim

    def __len__(self) -> int:
        return len(self.of)

    def __getitem__(self, rows: Any) -> Vectors:
        wanted = np.arange(len(self))[rows]
        found = self.of.read(np.atleast_1d(wanted), self.place)
        return found if np.ndim(wanted) else found[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return self[:].astype(dtype or np.float16, copy=False)


class Embeddings:
    """The embeddings that one scorer stored, a row for each of `uids`, in their order.

    `Manifest.embeddings` opens them. `pictures` and `captions` have them. Nothing is read before it is used: the files
    are mapped into memory, one for each shard.
    """

    def __init__(
        self, storage: Storage, stages: StageKeys, scorer: str, uids: pa.Array, shards: npt.NDArray[np.int64]
    ) -> None:
        """`shards` is the shard of each uid, -1 without results. Raises ModelError for a scorer without embeddings."""
        self.scorer, self.uids = scorer, uids
        self._storage, self._stage = storage, _stage(storage, stages, scorer)
        self._shards = shards
        self._places = self._located(uids)
        self._open = lru_cache(_OPEN)(self._opened)

    def __len__(self) -> int:
        return len(self.uids)

    def __repr__(self) -> str:
        return f"Embeddings({self.scorer!r}, {len(self):,} rows, {self.dim} dimensions)"

    @property
    def pictures(self) -> Side:
        """Those of the pictures."""
        return Side(self, 0)

    @property
    def captions(self) -> Side:
        """Those of the captions."""
        return Side(self, 1)

    @cached_property
    def dim(self) -> int:
        """Numbers in a vector; 0 if no row has any."""
        known = self._shards[self._shards >= 0]
        return int(self._open(int(known[0])).shape[2]) if len(known) else 0

    def read(self, rows: npt.NDArray[np.int64], side: int) -> Vectors:
        """float16 [rows, dim] of one side, 0 for pictures and 1 for captions."""
        found = np.full((len(rows), self.dim), np.nan, np.float16)
        for shard, here in _by_shard(self._shards[rows]):
            found[here] = self._open(shard)[self._places[rows[here]], side]
        return found

    def _located(self, uids: pa.Array) -> npt.NDArray[np.int64]:
        """The place of each row in the file of its shard."""
        places = np.zeros(len(uids), np.int64)
        for shard, here in _by_shard(self._shards):
            key = f"scores/{self._stage}/{shard:05d}.parquet"
            stored = pq.read_table(self._storage.fetch(key), columns=["uid"], partitioning=None)["uid"]
            at = pc.index_in(uids.take(pa.array(here)), stored.combine_chunks())
            if at.null_count:
                raise StorageError(f"{key} is not aligned with its pairs: delete it, and run `winnow curate`")
            places[here] = at.to_numpy()
        return places

    def _opened(self, shard: int) -> npt.NDArray[np.float16]:
        key = f"embeddings/{self._stage}/{shard:05d}.npy"
        try:
            stored: npt.NDArray[np.float16] = np.load(self._storage.fetch(key), mmap_mode="r", allow_pickle=False)
        except (ValueError, OSError, EOFError):
            raise StorageError(f"{key} is damaged: delete it, and `winnow curate` makes it again") from None
        return stored


def _by_shard(shards: npt.NDArray[np.int64]) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
    """Each shard, and the ascending positions of its rows. Rows of no shard, -1, are left out."""
    order = np.argsort(shards, kind="stable")
    found, first = np.unique(shards[order], return_index=True)
    for shard, here in zip(found.tolist(), np.split(order, first[1:]), strict=False):  # no row is one part, too
        if shard >= 0:
            yield shard, here


def scorers_with_embeddings(storage: Storage, stages: StageKeys) -> list[str]:
    """The scorers that stored embeddings."""
    return [name for name, key in stages.scores.items() if storage.keys(f"embeddings/{name}-{key}")]


def _stage(storage: Storage, stages: StageKeys, scorer: str) -> str:
    """The name and the key of the stage of a scorer, such as "clip-1a2b3c4d"."""
    there = scorers_with_embeddings(storage, stages)
    if scorer not in there:
        raise ModelError(f"the store has no embeddings of {scorer!r}; it has those of {', '.join(there) or 'none'}")
    return f"{scorer}-{stages.scores[scorer]}"
