"""Rows parts: all columns of about a hundred shards in one Parquet file, in ledger order, named by its sha256.

A part whose shards, results and membership are what they were is found again by a digest of its inputs.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import secrets, tables
from pipeline.errors import StorageError
from pipeline.failure import FORGOTTEN
from pipeline.pairs import Ledger, Shard
from pipeline.source import Source, row_columns
from pipeline.stage import Stage, canonical_json, digest
from pipeline.storage import Storage

FORMAT = 3
"""Raised when the same inputs would give other parts."""

SHARDS = 100
"""Shards of a part: those whose numbers differ only in the last two digits, so that one that leaves moves no other."""

ROW_GROUP = 65_536
"""Rows of a Parquet row group."""

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


@dataclass(frozen=True)
class Rows:
    """The storage key of a rows object, and how many rows it has."""

    key: str
    count: int


def results(source: Source, storage: Storage, ledger: Ledger, quarantined: Iterable[int]) -> Results:
    """What the source's settings make of its pairs. Loads no model."""
    from pipeline import download, score

    shards = download.stage(source)
    extra = _extra(storage.fetch(shard.key) for shard in ledger.shards)
    scores = score.stages(source, shards)
    scores |= score.pool_stages(source, shards, scores, ledger, quarantined)
    return Results(shards, scores, row_columns(extra, source.scorers))


def parts(storage: Storage, ledger: Ledger, made: Results, quarantined: Mapping[int, str]) -> list[Rows]:
    """The parts of all pairs that are in the source now, written where they are not there yet.

    Raises StorageError for a result that is missing, or does not line up with its pairs.
    """
    gone = stale(storage, ledger)
    columns = [[field.name, str(field.type)] for field in made.columns]
    found = []
    for _, group in groupby(ledger.shards, key=lambda shard: shard.number // SHARDS):
        shards = list(group)
        told = [[each.number, each.key, gone.get(each.number), quarantined.get(each.number)] for each in shards]
        index = f"rows/by-input/{digest([FORMAT, columns, made.keys, told])}.json"
        if storage.done(index) and storage.done((known := Rows(**json.loads(storage.fetch(index).read_bytes()))).key):
            found.append(known)
            continue
        whole = (_shard_rows(storage, each, made, quarantined.get(each.number)) for each in shards)
        current = (_without(table, gone.get(each.number)) for table, each in zip(whole, shards, strict=True))
        found.append(put_parquet(storage, "rows", made.columns, current))
        storage.put_if_absent(index, canonical_json({"key": found[-1].key, "count": found[-1].count}))
    return found


def put_parquet(storage: Storage, folder: str, schema: pa.Schema, batches: Iterable[pa.Table]) -> Rows:
    """Write tables as one Parquet object named by its content: row groups of `ROW_GROUP`, always the same bytes."""
    with storage.scratch() as scratch:
        local, count = scratch / "part.parquet", 0
        with pq.ParquetWriter(local, schema, **_layout(schema)) as writer:
            for group in cut(batches, ROW_GROUP):
                writer.write_table(group, row_group_size=ROW_GROUP)
                count += len(group)
        with local.open("rb") as file:
            key = f"{folder}/{hashlib.file_digest(file, 'sha256').hexdigest()}.parquet"
        if not storage.done(key):
            storage.put_file(key, local)
    return Rows(key, count)


def _layout(schema: pa.Schema) -> dict[str, Any]:
    """How columns are stored, for who reads some of them in all rows.

    Text is compressed, uids are not: they are noise, and to unpack them takes longer than to read them. Numbers hardly
    shrink either. No dictionary is tried where nearly every value is another: it costs time and space.
    """
    floating = [field.name for field in schema if pa.types.is_floating(field.type)]
    text = [field.name for field in schema if pa.types.is_string(field.type) and field.name != "uid"]
    own = {"uid", "url", "caption", "sha256", *floating}
    return {
        "compression": {name: "zstd" if name in text else "none" for name in schema.names},
        "use_dictionary": [name for name in schema.names if name not in own],
    }


def cut(batches: Iterable[pa.Table], length: int) -> Iterator[pa.Table]:
    """The same rows, cut anew: every table but the last has `length` rows; the last may have none."""
    held: list[pa.Table] = []
    for batch in batches:
        held.append(batch)
        while sum(map(len, held)) >= length:
            whole = pa.concat_tables(held)
            yield whole.slice(0, length)
            held = [whole.slice(length)]
    yield pa.concat_tables(held)


def _extra(shards: Iterable[Path]) -> pa.Schema:
    """The source's extra columns, with the type that all shards agree on, or else as text."""
    kinds: dict[str, set[pa.DataType]] = {}
    for path in shards:
        for field in pq.read_schema(path):
            kinds.setdefault(field.name, set()).add(field.type)
    agreed = {name: found - {pa.null()} for name, found in kinds.items() if name not in _OF_PAIRS}
    return pa.schema({name: found.pop() if len(found) == 1 else pa.string() for name, found in agreed.items()})


def stale(storage: Storage, ledger: Ledger) -> dict[int, list[int]]:
    """By shard, the positions of pairs that are not in the source any more, not with these extra columns, or in a
    later shard once more."""
    if ledger.current is None and ledger.revision is None:
        return {}
    files = {str(storage.fetch(shard.key)): shard.number for shard in ledger.shards}
    numbers = pa.table({"filename": list(files), "number": list(files.values())})
    revised = [storage.fetch(shard.key) for shard in ledger.shards if shard.revised]
    with storage.scratch() as scratch, tables.connect(scratch) as con:
        con.from_arrow(numbers).create("numbers")
        con.execute("CREATE TABLE later (entry VARCHAR, newest INTEGER)")
        if revised:
            shards = f"{tables.parquet(revised, 'filename')} JOIN numbers USING (filename)"
            con.execute(f"INSERT INTO later SELECT entry, max(number) FROM {shards} GROUP BY entry")
        out = "number < newest"
        if ledger.current is not None:
            current = tables.parquet([storage.fetch(ledger.current)])
            out += f" OR entry NOT IN (SELECT entry FROM {current})"
        found = con.execute(
            "SELECT number, list(file_row_number ORDER BY file_row_number) FROM "
            f"{tables.parquet(map(Path, files), 'filename', 'file_row_number')} "
            f"JOIN numbers USING (filename) LEFT JOIN later USING (entry) WHERE {out} GROUP BY number"
        ).fetchall()
    return dict(found)


def _without(table: pa.Table, positions: Sequence[int] | None) -> pa.Table:
    if not positions:
        return table
    keep = np.ones(len(table), bool)
    keep[positions] = False
    return table.filter(pa.array(keep))


def _shard_rows(storage: Storage, shard: Shard, made: Results, reason: str | None) -> pa.Table:
    """All columns of one shard's pairs, those that have left the source included."""
    pairs = pq.read_table(storage.fetch(shard.key), partitioning=None)
    known = {name: pairs[name] for name in pairs.column_names}
    known["shard"] = pa.repeat(pa.scalar(shard.number, pa.int32()), len(pairs))
    if reason is None:
        for stage in (made.shards, *made.scores.values()):
            known |= aligned(storage, stage.item(shard.number, ".parquet"), pairs)
        missing = [name for name in made.columns.names if name not in known]
        if missing:
            raise StorageError(f"the results of shard {shard.number:05d} lack the column {missing[0]!r}")
    else:
        known |= {name: pa.repeat(pa.scalar("quarantined"), len(pairs)) for name in ("status", "cause")}
        known["error"] = pa.repeat(pa.scalar(reason), len(pairs))
    known["url"] = secrets.hide(known["url"])
    if pc.any(down := pc.equal(known["cause"], FORGOTTEN)).as_py():
        known = {name: _taken(name, column, down) for name, column in known.items()}
    empty = pa.nulls(len(pairs))
    return pa.table([_typed(known.get(field.name, empty), field.type) for field in made.columns], schema=made.columns)


def _taken(name: str, column: pa.ChunkedArray, down: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column without what it says of pairs that were taken down. Words are empty then, and never NULL."""
    if name in ("uid", "status", "cause", "error", "shard"):
        return column
    instead = pa.scalar("" if name in ("url", "caption") else None, column.type)
    return pc.if_else(pc.fill_null(down, False), instead, column)


def aligned(storage: Storage, key: str, pairs: pa.Table) -> dict[str, pa.ChunkedArray]:
    """The columns that a stage made for these pairs. Raises StorageError if they are those of other pairs."""
    table = pq.read_table(storage.fetch(key), partitioning=None)
    if not table["uid"].equals(pairs["uid"]):
        raise StorageError(f"{key} does not line up with its pairs: delete it and run the same command again")
    return {name: table[name] for name in table.column_names if name not in _OF_PAIRS}


def _typed(column: pa.ChunkedArray | pa.Array, kind: pa.DataType) -> pa.ChunkedArray | pa.Array:
    """The column as `kind`, NaN as NULL: SQL takes NaN for the largest number, and it would pass every threshold."""
    if pa.types.is_floating(kind):
        column = pc.if_else(pc.is_nan(column.cast(kind)), pa.scalar(None, kind), column.cast(kind))
    return column.cast(kind)
