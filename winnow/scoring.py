"""Trying a scorer on a sample, before it is part of a source file."""

from collections.abc import Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter, ValidationError

from pipeline.errors import ModelError, WinnowError
from pipeline.manifest.columns import score_columns
from pipeline.process.scratch import temporary_folder
from pipeline.scorers.kinds import AnySpec
from pipeline.scorers.spec import WINDOW, Batch, Columns, HeadSpec, PerShard, PoolSpec, Prepares, Spec
from pipeline.scorers.user_scorer import TYPES, as_columns
from pipeline.scoring.writer import ScoreWriter
from winnow.samples import Sample


@runtime_checkable
class SimpleScorer(Protocol):
    """What `winnow.score` takes besides files and tables: the names that a scorer's file has.

    `columns` names the columns and their types: float32, int32, int64, uint64, bool or string. `score(batch)` returns a
    value for each pair by column, None for no score. With a method `prepare(image)`, `batch.images` has its results for
    RGB pictures; without one `batch.images` is empty.
    """

    columns: Mapping[str, str]

    def score(self, batch: Batch) -> Mapping[str, Any]:
        """Values by column, each as long as the batch."""
        ...


def score(sample: Sample, scorer: SimpleScorer | str | PathLike[str] | Mapping[str, Any], name: str = "mine") -> Sample:
    """The sample with the columns of a scorer, which are called `name`_COLUMN as in `rows`.

    `scorer` is an object with `columns` and `score`, the path of a file with these (what `kind = "./my_scorer.py"` in a
    source file names), or the table of a scorer, such as {"kind": "pixels"}. Raises WinnowError for a scorer that does
    not run, or returns other columns than it promised, and for one that needs the whole pool or other scores.
    """
    spec = _spec(scorer, name)
    if isinstance(spec, HeadSpec | PoolSpec):
        raise ModelError(f"scorers of kind {spec.kind!r} need the whole pool or other scores: run `winnow curate`")
    loaded = spec.load()
    if isinstance(loaded, PerShard):
        raise ModelError(f"scorers of kind {spec.kind!r} need whole shards: run `winnow curate`")
    runs: Any = loaded
    try:
        with temporary_folder() as folder:
            writer = ScoreWriter(name, spec, len(sample), Path(folder), runs.embedding_dim)
            extra = _extra(sample)
            for start in range(0, len(sample), WINDOW):
                batch = _batch(sample, start, extra, runs, spec.looks_at_pictures)
                writer.add(np.arange(start, start + len(batch)), runs.score(batch))
            made = pq.read_table(writer.write(sample.rows["uid"]))
    except WinnowError:
        raise
    except Exception as error:
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise WinnowError(f"scorer {name!r} fails: {type(error).__name__}: {line}") from error
    return sample.with_columns({column: made[column] for column in made.column_names if column != "uid"})


def _spec(scorer: Any, name: str) -> Spec:
    if isinstance(scorer, str | PathLike):
        scorer = {"kind": str(Path(fspath(scorer)).absolute())}
    if isinstance(scorer, Mapping):
        try:
            found: Spec = TypeAdapter(AnySpec).validate_python(dict(scorer), context={"folder": Path.cwd()})
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(each) for each in first["loc"][1:])
            raise ModelError(f"scorer {name!r}: {where}: {first['msg'].removeprefix('Value error, ')}") from None
        return found
    if not isinstance(scorer, SimpleScorer):
        raise ModelError(f"scorer {name!r} needs columns, a dict like {{'green': 'float32'}}, and score(batch)")
    for column, kind in scorer.columns.items():
        if kind not in TYPES:
            raise ModelError(f"scorer {name!r}: column {column!r} is {kind!r}; take one of {', '.join(TYPES)}")
    return _Tried(kind="tried").of(scorer)


class _Tried(Spec):
    """The spec of an object."""

    _scorer: Any = None

    def of(self, scorer: SimpleScorer) -> "_Tried":
        self._scorer = scorer
        return self

    @property
    def looks_at_pictures(self) -> bool:  # type: ignore[override]
        """Whether it has `prepare`."""
        return hasattr(self._scorer, "prepare")

    def columns(self) -> Mapping[str, pa.DataType]:
        """Its columns."""
        return {name: TYPES[kind] for name, kind in self._scorer.columns.items()}

    def load(self) -> Any:
        """The object, whose lists become Arrow arrays of the promised types."""
        return _Arrays(self._scorer, self.columns())


class _Arrays:
    embedding_dim = None

    def __init__(self, scorer: Any, columns: Mapping[str, pa.DataType]) -> None:
        self._scorer, self._columns = scorer, columns
        if hasattr(scorer, "prepare"):
            self.prepare = scorer.prepare

    def score(self, batch: Batch) -> Columns:
        return as_columns(self._scorer.score(batch), self._columns)


def _batch(sample: Sample, start: int, extra: pa.Table, scorer: Any, looks: bool) -> Batch:
    part = sample.rows.slice(start, WINDOW)
    pictures = sample.pictures[start : start + len(part)] if looks else ()
    images = [scorer.prepare(each) for each in pictures] if isinstance(scorer, Prepares) else pictures
    return Batch(part["uid"].to_pylist(), images, part["caption"].to_pylist(), extra.slice(start, WINDOW))


def _extra(sample: Sample) -> pa.Table:
    """What a scorer of pairs reads besides the caption when a source is curated: no score of another scorer."""
    own = {"uid", "caption", "status", "cause", "error", "shard", "member"} | score_columns(sample.manifest)
    return sample.rows.select([name for name in sample.manifest.columns.names if name not in own])
