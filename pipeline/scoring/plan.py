"""Which stages make the results of a source, and the columns that they make together."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import SourceError, StorageError
from pipeline.ledger.ledger import Ledger
from pipeline.scorers.spec import HeadSpec, PoolSpec, Spec
from pipeline.sources.columns import row_columns
from pipeline.sources.source import Source
from pipeline.store.stage import Stage
from pipeline.store.storage import Storage

_OF_PAIRS = ("uid", "entry", "url", "caption", "url_number")


@dataclass(frozen=True)
class Results:
    """Where the results of the shards lie, and the columns that they make together."""

    shards: Stage
    scores: Mapping[str, Stage]
    columns: pa.Schema

    @property
    def keys(self) -> dict[str, Any]:
        """The keys of all stages, as JSON."""
        return {"shards": self.shards.key, "scores": {name: stage.key for name, stage in self.scores.items()}}


def results(source: Source, storage: Storage, ledger: Ledger, quarantined: Iterable[int]) -> Results:
    """What the source's settings make of its pairs. Loads no model."""
    from pipeline.download import download

    shards = download.stage(source)
    extra = _extra(storage.fetch(shard.key) for shard in ledger.shards)
    scores = stages(source, shards)
    scores |= pool_stages(source, shards, scores, ledger, quarantined)
    return Results(shards, scores, row_columns(extra, source.scorers))


def _extra(shards: Iterable[Path]) -> pa.Schema:
    """The source's extra columns, with the type that all shards agree on, or else as text."""
    kinds: dict[str, set[pa.DataType]] = {}
    for path in shards:
        for field in pq.read_schema(path):
            kinds.setdefault(field.name, set()).add(field.type)
    agreed = {name: found - {pa.null()} for name, found in kinds.items() if name not in _OF_PAIRS}
    return pa.schema({name: found.pop() if len(found) == 1 else pa.string() for name, found in agreed.items()})


def aligned(storage: Storage, key: str, pairs: pa.Table) -> dict[str, pa.ChunkedArray]:
    """The columns that a stage made for these pairs. Raises StorageError if they are those of other pairs."""
    table = pq.read_table(storage.fetch(key), partitioning=None)
    if not table["uid"].equals(pairs["uid"]):
        raise StorageError(f"{key} does not line up with its pairs: delete it and run the same command again")
    return {name: table[name] for name in table.column_names if name not in _OF_PAIRS}


def stages(source: "Source", shards: Stage) -> dict[str, Stage]:
    """What makes the results of each scorer of pairs by themselves, by its name. Loads no model, but digests weights.

    Raises SourceError or ModelError for scorers that cannot work, those of the whole pool included.
    """
    from pipeline.images import decoders  # a folder of specs, which are made of the nouns above

    made: dict[str, Stage] = {}
    for name, spec in source.scorers.items():
        if not isinstance(spec, HeadSpec | PoolSpec):
            _readable(source, name, spec)
            # Only what was downloaded is scored, so that even a scorer of captions alone depends on the shards.
            by = {"decoder": decoders.made_by(source.decoder)} if spec.looks_at_pictures else {}
            made[name] = Stage(f"scores/{name}", {"kind": spec.kind, **spec.identity(), **by, "reads": shards.key})
    for name, spec in source.scorers.items():
        if isinstance(spec, HeadSpec):
            of = source.scorers[spec.of]
            if of.encoder is None:
                raise SourceError(
                    f"scorers.{name}.of: {spec.of!r} stores no embeddings; name a clip or recorded scorer"
                )
            spec.check(of)
            made[name] = Stage(f"scores/{name}", {"kind": spec.kind, **spec.identity(), "reads": made[spec.of].key})
        elif isinstance(spec, PoolSpec):
            try:
                spec.check(source.scorers)
            except SourceError as error:
                raise SourceError(f"scorers.{name}: {error}") from None
    return made


def pool_stages(
    source: "Source", shards: Stage, scores: Mapping[str, Stage], ledger: "Ledger", quarantined: Iterable[int]
) -> dict[str, Stage]:
    """What makes the results of each scorer of the whole pool. A pool that grew, or lost anything, gets new ones."""
    pool: dict[str, Any] = {
        "ledger": ledger.digest,
        "quarantined": sorted(set(quarantined) & {shard.number for shard in ledger.shards}),
    }
    if ledger.revision:
        pool["revision"] = ledger.revision
    return {
        name: Stage(
            f"scores/{name}",
            {
                "kind": spec.kind,
                **spec.identity(),
                "reads": {"shards": shards.key, **{of: scores[of].key for of in spec.builds_on}},
                "pool": pool,
            },
        )
        for name, spec in source.scorers.items()
        if isinstance(spec, PoolSpec)
    }


def embeddings(name: str, scores: Stage) -> Stage:
    """Where the scorer `name` keeps its embeddings: float16 [pairs, 2, dim], a .npy a shard, image then text."""
    return Stage(f"embeddings/{name}", scores.made_by)


def certificate(scores: Stage) -> str:
    """The key of what a scorer said of itself when it was first loaded for this stage, as JSON."""
    return f"{scores.folder}/certificate.json"


def _readable(source: "Source", name: str, spec: Spec) -> None:
    from pipeline.sources.loading import extra_names  # a source is made of specs

    if source.demo is not None or not spec.reads:
        return
    known = ("url", "caption", *extra_names(source))
    for column in spec.reads:
        if column not in known:
            raise SourceError(
                f"scorers.{name}: there is no column {column!r}; add it to pairs.extra, or take one of {known}"
            )
