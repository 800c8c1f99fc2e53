"""The commit: the results of all shards become one manifest, immutable, content-addressed, all or nothing.

Every object is named by what it holds and put before the one that names it; the last, `log/<n>.json`, makes the
manifest the newest. A run that dies before that has changed nothing for anybody, and the next finds its parts again.
"""

import json
import math
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from filters.core import Recipe
from pipeline.errors import RecipeError, StorageError
from pipeline.filtering import distinct, predicates
from pipeline.filtering.distinct import Losers, Neighbours
from pipeline.ledger import blocklist
from pipeline.ledger.ledger import Ledger
from pipeline.manifest import database, placeholders
from pipeline.manifest.manifest import Counts, Manifest, log
from pipeline.manifest.parts import FORMAT, parts
from pipeline.scorers.edges import EDGES
from pipeline.scoring.plan import Plan, Results
from pipeline.sources.columns import row_columns, score_columns
from pipeline.sources.source import Source
from pipeline.store import duck
from pipeline.store.digests import canonical_json, digest
from pipeline.store.parquet import Rows, put_parquet
from pipeline.store.storage import Storage

VERDICTS = pa.schema({"kept": pa.bool_(), "dropped_by": pa.uint64(), "unknown": pa.uint64()})
"""Aligned with the rows. Bit i of dropped_by: filter i said no; of unknown: it had no answer. 0 unless downloaded."""

_VERSIONS = ("duckdb", "pyarrow", "torch", "open_clip_torch", "img2dataset", "pillow", "winnow")


@dataclass(frozen=True)
class Published:
    """The newest manifest after a run. `new` is False where the one before says the same."""

    id: str
    new: bool
    counts: Counts


def publish(
    plan: Plan, storage: Storage, ledger: Ledger, quarantined: Mapping[int, str], recipe: Recipe | None = None
) -> Published:
    """Publish what the ledger's pairs have become. Safe to run twice: the second time nothing is written.

    The `recipe` is the source's own unless given. `quarantined` gives the reason for each shard without a result; its
    pairs become rows with that status. Raises RecipeError for a filter that does not bind or fails on a row,
    StorageError for a result that is missing or does not line up with its pairs.
    """
    source, made = plan.source, plan.results(storage, ledger, quarantined)
    recipe, neighbours = recipe or source.own_recipe, _neighbours(source, made)
    predicates.bind(recipe.filters, made.columns)
    distinct.check(recipe.distinct, {name: each.radius for name, each in neighbours.items()}, made.columns)
    started = time.monotonic()
    rows = parts(storage, ledger, made, quarantined)
    waited = time.monotonic() - started
    sketch = _sketch(source, ledger, made, quarantined, recipe, neighbours) | {"rows": [asdict(part) for part in rows]}
    if newest := _unchanged(storage, sketch):
        database.refresh(storage)
        return Published(newest.id, False, newest.counts)
    with storage.scratch() as scratch, duck.connect(scratch, threads=1) as con:
        paths = [storage.fetch(part.key) for part in rows]
        card = _card(storage, made) | {"ranges": _ranges(con, paths, _scores(source))}
        card |= placeholders.told(con, storage, paths)
    card |= {"neighbours": distinct.told(storage, neighbours)} if neighbours else {}
    return decide(storage, sketch, card, recipe, waited)


def republish(storage: Storage, recipe: Recipe) -> Published:
    """Publish the newest manifest's rows under another recipe. Nothing is fetched or scored: what is there decides.

    The id is the one that `publish` gives a source with these rows and this recipe. Raises RecipeError where a filter
    does not bind, fails on a row, or has no answer for any pair, which is so when nobody computed its scores, and
    StorageError after an interrupted takedown, whose pairs are in these rows.
    """
    if blocklist.pending(storage).uids:
        raise StorageError("a takedown was interrupted: run `winnow curate`, which publishes the pairs that are left")
    newest = Manifest.open(storage)
    try:
        steps = newest.funnel(recipe)
    except RecipeError as error:
        raise RecipeError(f"recipe {recipe.name!r} does not fit the published scores: {error}") from None
    for step in steps:
        if step.unscored == newest.counts.pool > 0:
            raise RecipeError(f"recipe {recipe.name!r}: no pair has the scores that filter {step.filter!r} asks for")
    sketch = {key: value for key, value in newest.document.items() if key not in ("verdicts", "counts")}
    sketch |= {"recipe": written(recipe)}
    if _unchanged(storage, sketch):
        database.refresh(storage)
        return Published(newest.id, False, newest.counts)
    return decide(storage, sketch, newest.card, recipe, waited=0.0)


def decide(
    storage: Storage, sketch: Mapping[str, Any], card: Mapping[str, Any], recipe: Recipe, waited: float
) -> Published:
    """Give every row its verdict, and commit.

    `sketch` is a manifest without verdicts and counts; `waited` are the seconds that the rows took.
    """
    started = time.monotonic()
    rows = [Rows(**part) for part in sketch["rows"]]
    known = {name: Neighbours(**each) for name, each in sketch.get("neighbours", {}).items()}
    with storage.scratch() as scratch, duck.connect(scratch, threads=1) as con:
        verdicts, told = _verdicts(con, storage, rows, recipe, known)
    counts = Counts(sketch["ledger"]["input"], sketch["ledger"]["repeated"], **told)
    document = {**sketch, "verdicts": verdicts, "counts": asdict(counts)}
    seconds = [round(each, 3) for each in (waited, time.monotonic() - started)]
    why = {each.name: each.why for each in recipe.filters}
    manifest = digest(document)[:32]
    storage.put_if_absent(f"manifests/{manifest}.json", canonical_json(document))
    storage.put_if_absent(f"manifests/{manifest}.card.json", canonical_json({**card, "why": why, "seconds": seconds}))
    new = _commit(storage, manifest)
    database.refresh(storage)
    return Published(manifest, new, counts)


def _sketch(
    source: Source,
    ledger: Ledger,
    made: Results,
    quarantined: Mapping[int, str],
    recipe: Recipe,
    neighbours: Mapping[str, Neighbours],
) -> dict[str, Any]:
    """With the rows, all that decides a manifest; its verdicts and counts follow from it."""
    return {
        "format": FORMAT,
        "source": source.name,
        "ledger": {"digest": ledger.digest, "input": ledger.input, "repeated": ledger.repeated},
        "stages": made.keys,
        "quarantined": sorted(set(quarantined) & {shard.number for shard in ledger.shards}),
        "recipe": written(recipe),
    } | ({"neighbours": {name: asdict(each) for name, each in neighbours.items()}} if neighbours else {})


def written(recipe: Recipe) -> dict[str, Any]:
    """The recipe as a manifest holds it: the reasons in words are no part of it."""
    filters = [{"name": each.name, "sql": each.sql} for each in recipe.filters]
    return {"name": recipe.name, "filters": filters} | (
        {"distinct": asdict(recipe.distinct)} if recipe.distinct else {}
    )


def _neighbours(source: Source, made: Results) -> dict[str, Neighbours]:
    """Where the source's edges between near-duplicates lie, by the scorer that found them."""
    return {
        name: Neighbours(f"{made.scores[name].folder}/{EDGES}", spec.pictures(name), spec.radius)
        for name, spec in source.neighbour_scorers.items()
    }


def _unchanged(storage: Storage, sketch: Mapping[str, Any]) -> Manifest | None:
    """The newest manifest, if it was made of just this: keys are compared, nothing is computed again."""
    if not log(storage):
        return None
    newest = Manifest.open(storage)
    same = all(newest.document[key] == value for key, value in sketch.items())
    return newest if same and all(storage.done(part.verdicts) for part in newest.parts) else None


def _commit(storage: Storage, manifest: str) -> bool:
    """Make the manifest the newest one; False if it is. Of several publishers at once each gets its own number."""
    while True:
        commits = log(storage)
        parent = commits[-1].id if commits else None
        if parent == manifest:
            return False
        entry = {"id": manifest, "parent": parent, "time": datetime.now(UTC).isoformat(timespec="seconds")}
        number = commits[-1].number + 1 if commits else 0
        if storage.put_if_absent(f"log/{number:08d}.json", canonical_json(entry)):
            return True


def _verdicts(
    con: duckdb.DuckDBPyConnection,
    storage: Storage,
    rows: Sequence[Rows],
    recipe: Recipe,
    known: Mapping[str, Neighbours],
) -> tuple[list[str], dict[str, int]]:
    """Put an aligned verdict file for each part. Gives their keys, and how many rows were kept, dropped and so on.

    The connection has one thread, so that a threshold that is an average comes out the same every time.
    """
    paths, counts, filters = [storage.fetch(part.key) for part in rows], [part.count for part in rows], recipe.filters
    predicates.view_parts(con, paths)
    no, unknown = (_bits(f"f{{}} {test}", len(filters)) for test in ("= false", "IS NULL"))
    lost = None
    if recipe.distinct:
        neighbours = distinct.among(recipe.distinct.of, known)
        lost = distinct.losers(con, storage, paths, counts, filters, recipe.distinct, neighbours)
    with predicates.blaming(con, paths, filters):
        reader = con.sql(
            f"SELECT file_row_number, ok, ok AND no = 0 AND unknown = 0 AS kept, no AS dropped_by, unknown FROM "
            f"(SELECT file_row_number, ok, {no} AS no, {unknown} AS unknown FROM ({predicates.judged(paths, filters)}))"
        ).to_arrow_reader(65_536)
        keys, start = [], 0
        for part, table in zip(rows, _cut(reader, counts), strict=True):
            if not np.array_equal(table["file_row_number"], np.arange(part.count)):
                raise StorageError(f"the rows of {part.key} came in another order: report this")
            table = table.select(VERDICTS.names)
            table = _with(lost.of(start, part.count), table, 1 << len(filters)) if lost else table
            keys.append(put_parquet(storage, "verdicts", VERDICTS, [table]).key)
            start += part.count
    return keys, _told(con, paths, [storage.fetch(key) for key in keys])


def _with(lost: Losers, verdicts: pa.Table, bit: int) -> pa.Table:
    """The verdicts of a part, with those that `distinct` adds."""
    columns = {name: verdicts[name].to_numpy().copy() for name in VERDICTS.names}
    for rows, column in ((lost.repeated, "dropped_by"), (lost.unknown, "unknown")):
        columns["kept"][rows] = False
        columns[column][rows] |= np.uint64(bit)
    return pa.table(columns, schema=VERDICTS)


def _bits(test: str, filters: int) -> str:
    """SQL for an integer with bit i set where the pair was downloaded and the test is true of filter i."""
    bits = [f"CASE WHEN ok AND {test.format(i)} THEN {1 << i}::UBIGINT ELSE 0 END" for i in range(filters)]
    return " | ".join(["0::UBIGINT", *bits])


def _cut(reader: pa.RecordBatchReader, lengths: Sequence[int]) -> Iterator[pa.Table]:
    """One table for each length, in order. Raises StorageError unless the rows are as many as the lengths say."""
    held = reader.schema.empty_table()
    for length in lengths:
        while len(held) < length and (batch := next(reader, None)) is not None:
            held = pa.concat_tables([held, pa.Table.from_batches([batch])])
        yield held.slice(0, length)
        held = held.slice(length)
    if len(held) or next(reader, None) is not None:
        raise StorageError("there are more rows than the parts are said to have: report this")


def _told(con: duckdb.DuckDBPyConnection, rows: Sequence[Path], verdicts: Sequence[Path]) -> dict[str, int]:
    """Count what was written, row by row."""
    counted = {
        "kept": "kept",
        "dropped": "status = 'ok' AND NOT kept",
        "unscored": "unknown <> 0",
        "failed": "status = 'failed'",
        "quarantined": "status = 'quarantined'",
    }
    row = con.execute(
        f"SELECT {', '.join(f'count(*) FILTER ({test})' for test in counted.values())} FROM "
        f"{duck.parquet(rows)} POSITIONAL JOIN {duck.parquet(verdicts)}"
    ).fetchone()
    return dict(zip(counted, row or (), strict=True))


def _ranges(
    con: duckdb.DuckDBPyConnection, paths: Sequence[Path], columns: Sequence[str]
) -> dict[str, dict[str, float | int | None]]:
    """By score column: how many pairs have one, the lowest, the mean and the highest."""
    if not columns:
        return {}
    sums = [f'count("{name}"), min("{name}"), avg("{name}"), max("{name}")' for name in columns]
    row = con.execute(f"SELECT {', '.join(sums)} FROM {duck.parquet(paths)}").fetchone() or ()
    values = [float(f"{value:.6g}") if value is not None and math.isfinite(value) else None for value in row]
    four = [values[at : at + 4] for at in range(0, len(values), 4)]
    return {
        name: dict(zip(("count", "min", "mean", "max"), each, strict=True))
        for name, each in zip(columns, four, strict=True)
    }


def _scores(source: Source) -> list[str]:
    """The score columns that have a range; a hash has none."""
    columns = row_columns(pa.schema([]), source.scorers)
    return [
        name
        for name in score_columns(source.scorers)
        if pa.types.is_floating(columns.field(name).type) or pa.types.is_signed_integer(columns.field(name).type)
    ]


def _card(storage: Storage, made: Results) -> dict[str, Any]:
    """What is worth knowing about how it was made, and is no part of the id."""
    certified = {name: made.plan.certificate(name) for name in made.plan.scores}
    return {
        "made_by": {stage.name: dict(stage.made_by) for stage in made.stages},
        "certificates": {
            name: json.loads(storage.fetch(key).read_bytes()) for name, key in certified.items() if storage.done(key)
        },
        "versions": {"python": platform.python_version()} | {name: version(name) for name in _VERSIONS},
    }
