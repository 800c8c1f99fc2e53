"""Scores one shard with all scorers that have no result for it. The shard is read and decoded once."""

import contextlib
import ctypes
import json
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.errors import ModelError, ShardError, WinnowError
from pipeline.ledger.ledger import Shard
from pipeline.scorers.spec import WINDOW, Batch, Certified, Head, HeadSpec, PerShard, Scorer, SharingSpec, Spec
from pipeline.scoring.plan import Plan
from pipeline.scoring.windows import Opened, Windows
from pipeline.scoring.writer import ScoreWriter
from pipeline.store.digests import canonical_json
from pipeline.store.storage import Storage

T = TypeVar("T")


class Scoring:
    """Scores shards of one source. Models are loaded once for all shards.

    A call with a shard computes its missing scores, with all scorers in one pass over its pictures. A model is loaded
    when one of its results is missing. Raises ShardError for a shard that cannot be scored, and ModelError for a model
    that would fail every shard.

    `seconds` has the time spent so far waiting for "pictures", and in each scorer, by its name.
    """

    def __init__(self, plan: Plan, storage: Storage) -> None:
        self.plan, self.storage = plan, storage
        scorers = plan.source.scorers
        self.specs: Mapping[str, Spec] = {name: scorers[name] for name in scorers if name in plan.scores}
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._loaded: dict[str, Any] = {}
        self._windows = Windows(storage, plan.shards, plan.source.decoder)
        self._opened: dict[int, Opened] = {}
        self._expected: Shard | None = None

    def prefetch(self, shard: Shard) -> None:
        """Announce the shard after the next one.

        It is read and decoded while the last window of the next one is scored.
        """
        self._expected = shard

    def __call__(self, shard: Shard) -> None:
        """Compute and store the missing results of every scorer for the shard."""
        missing = self._missing(shard)
        if not missing:
            return
        heads = {name: spec for name, spec in missing.items() if isinstance(spec, HeadSpec)}
        scorers = {name: spec for name, spec in missing.items() if name not in heads}
        opened = self._opened.pop(shard.number, None) or self._open(shard, scorers)
        if scorers:
            self._run_scorers(shard, opened, scorers)
        for name, head in heads.items():
            self._run_head(shard, opened.pairs["uid"], name, head)
        _trim()

    def _missing(self, shard: Shard) -> Mapping[str, Spec]:
        return {name: spec for name, spec in self.specs.items() if not self._done(name, shard)}

    def _done(self, name: str, shard: Shard) -> bool:
        keys = [self.plan.scores[name].item(shard.number, ".parquet")]
        if name in self.plan.embeddings:
            keys.append(self.plan.embeddings[name].item(shard.number, ".npy"))
        return all(self.storage.done(key) for key in keys)

    def load(self, name: str) -> Any:
        """The scorer or head of that name, loaded once."""
        if name not in self._loaded:
            spec = self.specs[name]
            self._loaded[name] = self._load(spec)
            self._check(name)
            self.plan.scores[name].describe(self.storage)
        return self._loaded[name]

    def _load(self, spec: Spec) -> Any:
        if isinstance(spec, HeadSpec | SharingSpec) and spec.of is not None:
            return spec.load(partial(self.load, spec.of))
        return spec.load()

    def _scorer(self, name: str, shard: Shard) -> Scorer:
        """The scorer of that name for the shard."""
        loaded: Scorer | PerShard = self.load(name)
        if isinstance(loaded, PerShard):
            return loaded.of_shard(shard.number, None if shard.revised == "forgotten" else shard.key)
        return loaded

    def _check(self, name: str) -> None:
        """Raises ModelError unless what was loaded is what the key says, and scores as whatever scored under it before.

        The key was made before the weights were read, and holds neither the machine nor every library.
        """
        spec, stage, loaded = self.specs[name], self.plan.scores[name], self._loaded[name]
        if changed := [key for key, value in spec.identity().items() if stage.made_by[key] != value]:
            raise ModelError(f"scorers.{name}: {', '.join(changed)} changed while it was loaded: run the command again")
        if not isinstance(loaded, Certified):
            return
        key, certificate = self.plan.certificate(name), {**loaded.certificate, "decoder": stage.made_by.get("decoder")}
        self.storage.put_if_absent(key, canonical_json(certificate))
        before = json.loads(self.storage.fetch(key).read_bytes())
        drift = float(np.abs(np.subtract(certificate["golden"], before["golden"])).max())
        if not drift <= certificate["tolerance"][certificate["precision"]]:
            raise ModelError(
                f"scorers.{name}: golden pairs score up to {drift:.2g} from what {key} says, and scores of two kinds "
                f"would mix: remove {stage.folder} to score anew"
            )

    def _open(self, shard: Shard, scorers: Mapping[str, Spec]) -> Opened:
        """Begin to read a shard, and load these scorers."""
        of_pictures = {name: self._scorer(name, shard) for name, spec in scorers.items() if spec.looks_at_pictures}
        return self._windows.open(shard, of_pictures)

    def _look_ahead(self) -> None:
        """Open the expected shard, unless a model would have to be loaded for it."""
        shard, self._expected = self._expected, None
        missing = self._missing(shard) if shard else {}
        scorers = {name: spec for name, spec in missing.items() if not isinstance(spec, HeadSpec)}
        if shard and scorers and scorers.keys() <= self._loaded.keys():
            self._opened = {shard.number: self._open(shard, scorers)}

    def _run_scorers(self, shard: Shard, opened: Opened, specs: Mapping[str, Spec]) -> None:
        scorers = {name: self._scorer(name, shard) for name in specs}
        uids = opened.pairs["uid"]
        with self.storage.scratch() as scratch:
            results = {
                name: ScoreWriter(name, spec, len(uids), scratch, scorers[name].embedding_dim)
                for name, spec in specs.items()
            }
            for window in self._timed("pictures", opened):
                if window.last:
                    self._look_ahead()
                for name, scorer in scorers.items():
                    with _attribute_errors(name, shard, window.rows):
                        started = time.perf_counter()
                        columns = scorer.score(_batch(window.pairs, window.images.get(name, ())))
                        self.seconds[name] += time.perf_counter() - started
                        results[name].add(window.rows, columns)
            made = {}
            for name, result in results.items():
                if name in self.plan.embeddings:
                    made[self.plan.embeddings[name].item(shard.number, ".npy")] = result.write_embeddings()
                made[self.plan.scores[name].item(shard.number, ".parquet")] = result.write(uids)
            self.storage.put_files(made)

    def _run_head(self, shard: Shard, uids: pa.ChunkedArray, name: str, spec: HeadSpec) -> None:
        head: Head = self.load(name)
        stored = self._stored(spec.of, shard, len(uids))
        there = np.flatnonzero(~np.isnan(stored[:, 0, 0]))
        with self.storage.scratch() as scratch:
            result = ScoreWriter(name, spec, len(stored), scratch, None)
            for start in range(0, len(there), WINDOW):
                rows = there[start : start + WINDOW]
                with _attribute_errors(name, shard, rows):
                    result.add(rows, head.score(stored[rows, 0].astype(np.float32)))
            self.storage.put_file(self.plan.scores[name].item(shard.number, ".parquet"), result.write(uids))

    def _stored(self, of: str, shard: Shard, rows: int) -> npt.NDArray[np.float16]:
        """The embeddings of a scorer for the shard."""
        path = self.storage.fetch(self.plan.embeddings[of].item(shard.number, ".npy"))
        try:
            stored: npt.NDArray[np.float16] = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise ShardError("score", shard.number, f"{path} cannot be read: delete it, and run again") from error
        if len(stored) != rows:
            raise ShardError("score", shard.number, f"{path} has {len(stored)} rows for {rows} pairs: delete it")
        return stored

    def _timed(self, what: str, things: Iterable[T]) -> Iterator[T]:
        """The items of an iterable. The time until each item is available is added to `seconds[what]`."""
        things = iter(things)
        while True:
            started = time.perf_counter()
            thing = next(things, None)
            self.seconds[what] += time.perf_counter() - started
            if thing is None:
                return
            yield thing


def _trim() -> None:
    """Return the memory of the shard's pictures to the system under glibc, which does not do so itself.

    glibc keeps freed memory in fragments that fit the next shard less and less, so that the memory of a long run grows.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(0)


def _batch(window: pa.Table, images: Sequence[object]) -> Batch:
    own = ("uid", "entry", "caption", "url_number", "status", "member")
    return Batch(
        window["uid"].to_pylist(),
        images,
        window["caption"].to_pylist(),
        window.select([name for name in window.schema.names if name not in own]),
    )


@contextlib.contextmanager
def _attribute_errors(name: str, shard: Shard, rows: npt.NDArray[np.int64]) -> Iterator[None]:
    """Name the scorer that failed and the rows of the shard in the error. winnow's own errors pass unchanged."""
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
