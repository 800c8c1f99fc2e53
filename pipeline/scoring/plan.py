"""The plan of a source: the stages that compute its results, and the columns of all stages."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.download import by_source
from pipeline.errors import ModelError, SourceError, StorageError
from pipeline.images import decoders
from pipeline.ledger.ledger import Ledger, Shard
from pipeline.ledger.list_rows import agreed_type
from pipeline.scorers.spec import HeadSpec, PoolSpec, SharingSpec, Spec
from pipeline.scorers.target_set import TargetSet
from pipeline.sources.columns import row_columns
from pipeline.sources.loading import extra_names
from pipeline.sources.source import Source
from pipeline.store.digests import digest
from pipeline.store.stage import Stage
from pipeline.store.storage import Storage

_OF_PAIRS = ("uid", "entry", "url", "caption", "url_number")


@dataclass(frozen=True)
class Plan:
    """The stages that compute the results of a source. Create it with `Plan.of`.

    `shards` is the download. `scores` has the stage of every scorer and head that works on one shard, by its name. It
    does not contain scorers of the whole pool, whose stages depend on the ledger (see `pool`).
    """

    source: Source
    shards: Stage
    scores: Mapping[str, Stage]

    @classmethod
    def of(cls, source: Source) -> Self:
        """The plan of a source. Loads no model, but computes digests of weights.

        Raises SourceError or ModelError for a scorer that cannot run, including scorers of the whole pool.
        """
        shards = by_source.stage(source)
        scores = {
            name: _scorer(source, name, spec, shards)
            for name, spec in source.scorers.items()
            if not isinstance(spec, HeadSpec | SharingSpec | PoolSpec)
        }
        for name, spec in source.scorers.items():
            if isinstance(spec, SharingSpec):
                scores[name] = _sharing(source, name, spec, scores, shards)
            elif isinstance(spec, HeadSpec):
                scores[name] = _head(source, name, spec, scores)
            elif isinstance(spec, PoolSpec):
                _check_columns(source, name, spec)
                try:
                    spec.check(source.scorers)
                except SourceError as error:
                    raise SourceError(f"scorers.{name}: {error}") from None
        return cls(source, shards, scores)

    def check_targets(self) -> None:
        """Compare targets that are embeddings with the test pictures, before anything is fetched.

        It loads the model that encodes these, once for the same files. Raises ModelError for a target that is one.
        """
        for name, spec in self.source.scorers.items():
            if isinstance(spec, TargetSet):
                try:
                    spec.check_embeddings(self.source.scorers[spec.of])
                except ModelError as error:
                    raise ModelError(f"scorers.{name}: {error}") from None

    @cached_property
    def embeddings(self) -> Mapping[str, Stage]:
        """The embeddings of scorers that store them, as a .npy per shard: float16 [pairs, 2, dim], image then text."""
        return {
            name: Stage(f"embeddings/{name}", stage.made_by)
            for name, stage in self.scores.items()
            if self.source.scorers[name].encoder
        }

    def certificate(self, name: str) -> str:
        """The storage key of a scorer's certificate, JSON from the first time that it was loaded for its stage."""
        return f"{self.scores[name].folder}/certificate.json"

    @cached_property
    def of_pool(self) -> Mapping[str, Mapping[str, Any]]:
        """By scorer of the whole pool: all that decides its results, as JSON, but the pool itself."""
        return {name: self._of_pool(spec) for name, spec in self.source.scorers.items() if isinstance(spec, PoolSpec)}

    def _of_pool(self, spec: PoolSpec) -> dict[str, Any]:
        """Of one scorer. It may read another one of the whole pool, which has no stage without the pool."""
        scorers = self.source.scorers
        others = {of: other for of in spec.builds_on if isinstance(other := scorers[of], PoolSpec)}
        reads = {
            of: digest(self._of_pool(others[of])) if of in others else self.scores[of].key for of in spec.builds_on
        }
        return {"kind": spec.kind, **spec.identity(), "reads": {"shards": self.shards.key, **reads}}

    def pool(self, ledger: Ledger, quarantined: Iterable[int]) -> dict[str, Stage]:
        """The stages of the scorers of the whole pool. Every pair that the pool gains or loses changes them."""
        pool: dict[str, Any] = {
            "ledger": ledger.digest,
            "quarantined": sorted(set(quarantined) & {shard.number for shard in ledger.shards}),
        }
        if ledger.revision:
            pool["revision"] = ledger.revision
        return {name: Stage(f"scores/{name}", {**made_by, "pool": pool}) for name, made_by in self.of_pool.items()}

    def results(self, storage: Storage, ledger: Ledger, quarantined: Iterable[int]) -> "Results":
        """The results of this plan for the ledger's pairs."""
        extra = _extra(storage.fetch(shard.key) for shard in ledger.shards)
        scores = {**self.scores, **self.pool(ledger, quarantined)}
        return Results(self, scores, row_columns(extra, self.source.scorers))


@dataclass(frozen=True)
class Results:
    """The results of a plan for one ledger: the stages of all scorers by name, and the columns of `rows`."""

    plan: Plan
    scores: Mapping[str, Stage]
    columns: pa.Schema

    @property
    def stages(self) -> list[Stage]:
        """The download, then every scorer."""
        return [self.plan.shards, *self.scores.values()]

    def complete(self, storage: Storage, shards: Sequence[Shard]) -> bool:
        """Whether every stage has its result for each of these shards."""
        suffixes = [(self.plan.shards, ".tar"), *((stage, ".parquet") for stage in self.stages)]
        suffixes += [(stage, ".npy") for stage in self.plan.embeddings.values()]
        return all(storage.done(stage.item(shard.number, suffix)) for shard in shards for stage, suffix in suffixes)

    @property
    def keys(self) -> dict[str, Any]:
        """The keys of all stages, as JSON."""
        return {"shards": self.plan.shards.key, "scores": {name: stage.key for name, stage in self.scores.items()}}


def aligned(storage: Storage, key: str, pairs: pa.Table) -> dict[str, pa.ChunkedArray]:
    """The columns of a stage's result for these pairs. Raises StorageError if they belong to other pairs."""
    table = pq.read_table(storage.fetch(key), partitioning=None)
    if not table["uid"].equals(pairs["uid"]):
        raise StorageError(f"{key} is not aligned with its pairs: delete it and run the same command again")
    return {name: table[name] for name in table.column_names if name not in _OF_PAIRS}


def _extra(shards: Iterable[Path]) -> pa.Schema:
    """The source's extra columns, with a type for the values of all shards: the wider number, or else text."""
    kinds: dict[str, list[pa.DataType]] = {}
    for path in shards:
        for field in pq.read_schema(path):
            kinds.setdefault(field.name, []).append(field.type)
    return pa.schema({name: agreed_type(types) for name, types in kinds.items() if name not in _OF_PAIRS})


def _scorer(source: Source, name: str, spec: Spec, shards: Stage) -> Stage:
    """The stage of a scorer of pairs.

    It depends on the shards even if it reads captions only, because only downloaded pairs are scored.
    """
    _check_columns(source, name, spec)
    spec.check_source(source.name)
    decoder = {"decoder": decoders.identity(source.decoder)} if spec.looks_at_pictures else {}
    return Stage(f"scores/{name}", {"kind": spec.kind, **spec.identity(), **decoder, "reads": shards.key})


def _sharing(source: Source, name: str, spec: SharingSpec, scores: Mapping[str, Stage], shards: Stage) -> Stage:
    """The stage of a scorer of pairs that may use the model of another scorer."""
    stage = _scorer(source, name, spec, shards)
    if spec.of is None:
        return stage
    try:
        spec.check(source.scorers[spec.of])
    except SourceError as error:
        raise SourceError(f"scorers.{name}.{error}") from None
    return Stage(stage.name, {**stage.made_by, "reads": {"shards": shards.key, "of": scores[spec.of].key}})


def _head(source: Source, name: str, spec: HeadSpec, scores: Mapping[str, Stage]) -> Stage:
    """The stage of a head, which reads the embeddings of another scorer."""
    of = source.scorers[spec.of]
    if of.encoder is None:
        raise SourceError(f"scorers.{name}.of: {spec.of!r} {of.without_embeddings}; name a clip or recorded scorer")
    spec.check(of)
    return Stage(f"scores/{name}", {"kind": spec.kind, **spec.identity(), "reads": scores[spec.of].key})


def _check_columns(source: Source, name: str, spec: Spec) -> None:
    if source.demo is not None or not spec.reads:
        return
    known = ("url", "caption", *extra_names(source))
    for column in spec.reads:
        if column not in known:
            named = ", ".join(known)
            raise SourceError(
                f"scorers.{name}: there is no column {column!r}; add it to pairs.extra, or use one of {named}"
            )
