"""The windows of a downloaded shard. While one is scored, the next one is read and decoded, even across shards.

One thread reads and a pool decodes. At most one window is prepared ahead, which bounds memory.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.engine.prefetch import Prefetched
from pipeline.errors import ShardError
from pipeline.images import decoders
from pipeline.ledger.ledger import Shard
from pipeline.scorers.spec import WINDOW, Scorer
from pipeline.scoring.decode_pool import DecodePool
from pipeline.scoring.pictures import Pictures
from pipeline.store.stage import Stage
from pipeline.store.storage import Storage

DOWNLOADED = ("width", "height", "bytes", "sha256")
"""The columns of the download that a scorer gets."""


@dataclass(frozen=True)
class Window:
    """At most `WINDOW` downloaded pairs: `rows` has their positions in the shard, `pairs` their columns.

    `images` has the prepared pictures by scorer. `last` is true for the last window of the shard.
    """

    rows: npt.NDArray[np.int64]
    pairs: pa.Table
    images: Mapping[str, Sequence[Any]]
    last: bool


class Windows:
    """Opens shards, one or two at a time."""

    def __init__(self, storage: Storage, shards: Stage, decoder: decoders.Name) -> None:
        self._storage, self._shards = storage, shards
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="read")
        self._pool = DecodePool(decoder)

    def open(self, shard: Shard, scorers: Mapping[str, Scorer]) -> "Opened":
        """Begin to read a shard. `scorers` are those of pictures. An error is raised in place of its window."""
        pairs = self._thread.submit(self._pairs, shard)
        return Opened(pairs, self._windows(shard, pairs, scorers), self._thread)

    def _pairs(self, shard: Shard) -> pa.Table:
        """The shard's pairs, with the columns of their download."""
        key = self._shards.item(shard.number, ".parquet")
        if not self._storage.done(key):
            raise ShardError("score", shard.number, "it was not downloaded")
        try:
            pairs = pq.read_table(self._storage.fetch(shard.key))
            made = pq.read_table(self._storage.fetch(key))
        except (pa.ArrowInvalid, OSError) as error:
            line = " ".join(str(error).split())
            raise ShardError("score", shard.number, f"{key} or {shard.key} cannot be read: {line}") from error
        if not pairs["uid"].equals(made["uid"]):
            raise ShardError("score", shard.number, f"{key} is not aligned with {shard.key}; remove it and run again")
        for name in ("status", "member", *DOWNLOADED):
            pairs = pairs.append_column(name, made[name])
        return pairs

    def _windows(self, shard: Shard, pairs: "Future[pa.Table]", scorers: Mapping[str, Scorer]) -> Iterator[Window]:
        table = pairs.result()
        downloaded = np.flatnonzero(pc.equal(table["status"], "ok").to_numpy())
        with self._pictures(shard, scorers) as pictures:
            for start in range(0, len(downloaded), WINDOW):
                rows = downloaded[start : start + WINDOW]
                window = table.take(rows)
                images = pictures.take(window["member"].to_pylist()) if pictures else {}
                yield Window(rows, window, images, last=start + WINDOW >= len(downloaded))

    @contextlib.contextmanager
    def _pictures(self, shard: Shard, scorers: Mapping[str, Scorer]) -> Iterator[Pictures | None]:
        """The shard's pictures, or None if no scorer needs them."""
        if not scorers:
            yield None
            return
        tar = self._storage.fetch(self._shards.item(shard.number, ".tar"))
        with contextlib.closing(Pictures(shard.number, tar, scorers, self._pool)) as pictures:
            yield pictures


class Opened:
    """A shard that is being read. `pairs` waits for its table. Iterate once over it for its windows."""

    def __init__(self, pairs: "Future[pa.Table]", windows: Iterator[Window], thread: ThreadPoolExecutor) -> None:
        self._pairs, self._windows = pairs, Prefetched(windows, thread)

    @property
    def pairs(self) -> pa.Table:
        """Every pair of the shard, with the columns of its download. Raises ShardError."""
        return self._pairs.result()

    def __iter__(self) -> Iterator[Window]:
        return iter(self._windows)
