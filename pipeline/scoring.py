"""One shard through all scorers that lack a result for it: read once, decoded once, checked, written whole."""

import contextlib
import os
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import download, score
from pipeline.collected import Collected
from pipeline.errors import ShardError, WinnowError
from pipeline.pairs import Shard
from pipeline.pictures import Pictures
from pipeline.score import WINDOW, Batch, Head, HeadSpec, Scorer, Spec
from pipeline.source import Source
from pipeline.storage import Storage

_DOWNLOADED = ("width", "height", "bytes", "sha256")


class Scoring:
    """Scores shards of one source. What it loads serves all of them.

    `seconds` is what it spent so far waiting for "pictures", and in each scorer, by its name.
    """

    def __init__(self, source: Source, storage: Storage) -> None:
        self.storage = storage
        self.shards = download.stage(source)
        self.stages = score.stages(source, self.shards)
        self.specs: Mapping[str, Spec] = {name: source.scorers[name] for name in source.scorers if name in self.stages}
        self.embeddings = {
            name: score.embeddings(name, self.stages[name]) for name, spec in self.specs.items() if spec.encoder
        }
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._loaded: dict[str, Any] = {}

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="decode")

    def score(self, shard: Shard) -> None:
        """Leave a result of every scorer for the shard. Does nothing where all are there."""
        missing = {name: spec for name, spec in self.specs.items() if not self._done(name, shard)}
        if not missing:
            return
        table = self._table(shard)
        heads = {name: spec for name, spec in missing.items() if isinstance(spec, HeadSpec)}
        scorers = {name: spec for name, spec in missing.items() if name not in heads}
        if scorers:
            self._run_scorers(shard, table, scorers)
        for name, head in heads.items():
            self._run_head(shard, table["uid"], name, head)

    def _done(self, name: str, shard: Shard) -> bool:
        keys = [self.stages[name].item(shard.number, ".parquet")]
        if name in self.embeddings:
            keys.append(self.embeddings[name].item(shard.number, ".npy"))
        return all(self.storage.done(key) for key in keys)

    def load(self, name: str) -> Any:
        """The scorer or head of that name, loaded once."""
        if name not in self._loaded:
            spec = self.specs[name]
            self._loaded[name] = spec.load(partial(self.load, spec.of)) if isinstance(spec, HeadSpec) else spec.load()
            self.stages[name].describe(self.storage)
        return self._loaded[name]

    def _table(self, shard: Shard) -> pa.Table:
        """The shard's pairs, beside what became of their download."""
        key = self.shards.item(shard.number, ".parquet")
        if not self.storage.done(key):
            raise ShardError("score", shard.number, "it was not downloaded")
        try:
            pairs = pq.read_table(self.storage.fetch(shard.key))
            made = pq.read_table(self.storage.fetch(key))
        except (pa.ArrowInvalid, OSError) as error:
            raise ShardError("score", shard.number, f"{key} or {shard.key} cannot be read: {_line(error)}") from error
        if not pairs["uid"].equals(made["uid"]):
            raise ShardError("score", shard.number, f"{key} is not aligned with {shard.key}; remove it and run again")
        for name in ("status", "member", *_DOWNLOADED):
            pairs = pairs.append_column(name, made[name])
        return pairs

    def _run_scorers(self, shard: Shard, table: pa.Table, specs: Mapping[str, Spec]) -> None:
        scorers: dict[str, Scorer] = {name: self.load(name) for name in specs}
        with self.storage.scratch() as scratch, self._pictures(shard, scorers) as pictures:
            results = {
                name: Collected(name, spec, len(table), scratch, scorers[name].embedding_dim)
                for name, spec in specs.items()
            }
            downloaded = np.flatnonzero(pc.equal(table["status"], "ok").to_numpy())
            for start in range(0, len(downloaded), WINDOW):
                rows = downloaded[start : start + WINDOW]
                window = table.take(rows)
                with self._counted("pictures"):
                    images = pictures.take(window["member"].to_pylist()) if pictures else {}
                for name, scorer in scorers.items():
                    batch = _batch(window, images.get(name, ()))
                    with _blamed(name, shard, rows):
                        with self._counted(name):
                            columns = scorer.score(batch)
                        results[name].add(rows, columns)
            for name, result in results.items():
                if name in self.embeddings:
                    self.storage.put_file(self.embeddings[name].item(shard.number, ".npy"), result.write_embeddings())
                self._put(shard, name, result, table["uid"])

    @contextlib.contextmanager
    def _pictures(self, shard: Shard, scorers: Mapping[str, Scorer]) -> Iterator[Pictures | None]:
        """The shard's pictures, or None if no scorer looks at them."""
        looking = {name: scorer for name, scorer in scorers.items() if self.specs[name].looks_at_pictures}
        if not looking:
            yield None
            return
        tar = self.storage.fetch(self.shards.item(shard.number, ".tar"))
        with contextlib.closing(Pictures(shard.number, tar, looking, self._pool)) as pictures:
            yield pictures

    def _run_head(self, shard: Shard, uids: pa.ChunkedArray, name: str, spec: HeadSpec) -> None:
        head: Head = self.load(name)
        stored = self._stored(spec.of, shard, len(uids))
        there = np.flatnonzero(~np.isnan(stored[:, 0, 0]))
        with self.storage.scratch() as scratch:
            result = Collected(name, spec, len(stored), scratch, None)
            for start in range(0, len(there), WINDOW):
                rows = there[start : start + WINDOW]
                with _blamed(name, shard, rows):
                    result.add(rows, head.score(stored[rows, 0].astype(np.float32)))
            self._put(shard, name, result, uids)

    def _stored(self, of: str, shard: Shard, rows: int) -> npt.NDArray[np.float16]:
        """The embeddings of a scorer for the shard."""
        path = self.storage.fetch(self.embeddings[of].item(shard.number, ".npy"))
        try:
            stored: npt.NDArray[np.float16] = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise ShardError("score", shard.number, f"{path} cannot be read: delete it, and run again") from error
        if len(stored) != rows:
            raise ShardError("score", shard.number, f"{path} has {len(stored)} rows for {rows} pairs: delete it")
        return stored

    @contextlib.contextmanager
    def _counted(self, what: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[what] += time.perf_counter() - started

    def _put(self, shard: Shard, name: str, result: Collected, uids: pa.ChunkedArray) -> None:
        self.storage.put_file(self.stages[name].item(shard.number, ".parquet"), result.write(uids))


def _batch(window: pa.Table, images: Sequence[object]) -> Batch:
    own = ("uid", "entry", "caption", "url_number", "status", "member")
    return Batch(
        window["uid"].to_pylist(),
        images,
        window["caption"].to_pylist(),
        window.select([name for name in window.schema.names if name not in own]),
    )


@contextlib.contextmanager
def _blamed(name: str, shard: Shard, rows: npt.NDArray[np.int64]) -> Iterator[None]:
    """Say which scorer failed, and near which rows of the shard. What winnow itself raised, of models say, passes."""
    try:
        yield
    except WinnowError:
        raise
    except Exception as error:
        where = f"rows {rows[0]} to {rows[-1]}"
        raise ShardError("score", shard.number, f"scorer {name!r}, {where}: {_line(error)}") from error


def _line(error: Exception) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__
