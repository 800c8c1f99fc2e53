"""What a run adds to the ledger: pairs of the list that it has not seen."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import SourceError
from pipeline.ledger import blocklist, lists
from pipeline.ledger.blocklist import Blocked
from pipeline.ledger.ledger import SHARD_NUMBER, Ledger, Shard, commit, committed, current_key, put_shard
from pipeline.schema import ORIGIN
from pipeline.sources.loading import members
from pipeline.sources.source import Source
from pipeline.store import duck
from pipeline.store.storage import Storage
from pipeline.uids import draws, shares, uid


def update(source: Source, storage: Storage, progress: Callable[[int], None] = lambda rows: None) -> Ledger:
    """Read the source's list and append what is new. `progress` is told how many rows were read so far.

    Of a union the lists of its members are read one after the other: of each the pairs that are drawn, with `ORIGIN` as
    an extra column. A pair that several of them have is that of the first.
    Raises SourceError for a list that is empty or cannot be read; nothing is appended then.
    """
    with storage.scratch() as scratch, duck.connect(scratch) as con:
        listed = _listed(source, scratch, progress)
        _compare(con, listed, [storage.fetch(shard.key) for shard in committed(storage)])
        amended = _count(con, "(FROM fresh SEMI JOIN seen USING (uid))")
        if _count(con, "fresh"):
            asked = blocklist.binding(source, storage)
            appended = _append(con, storage, scratch, source.download.shard_size, asked)
            _see(con, [storage.fetch(shard.key) for shard in appended])
        return _snapshot(con, storage, scratch, amended)


def retry(storage: Storage, failed: pa.Table, size: int) -> int:
    """Append pairs once more, to be fetched anew; gives how many. `failed` has their uid and their shard so far.

    A pair that a later shard holds already is left out: that attempt was not published yet.
    """
    shards = {shard.number: storage.fetch(shard.key) for shard in committed(storage)}
    first = min(failed["shard"].to_pylist(), default=max(shards, default=0) + 1)
    files = [path for number, path in shards.items() if number >= first]
    if not len(failed) or not shards:
        return 0
    with storage.scratch() as scratch, duck.connect(scratch) as con:
        con.from_arrow(failed).create("failed")
        con.execute(
            f"CREATE TABLE held AS SELECT {SHARD_NUMBER} AS __shard, file_row_number AS __row, "
            f"* EXCLUDE ({duck.FILE}, file_row_number, url_number) FROM "
            f"{duck.parquet(files, 'filename', 'file_row_number', 'union_by_name')} SEMI JOIN failed USING (uid)"
        )
        con.execute(
            "CREATE TABLE listed AS SELECT row_number() OVER (ORDER BY __shard, __row) - 1 AS __ordinal, "
            "held.* EXCLUDE (__shard, __row) FROM held JOIN failed ON held.uid = failed.uid AND __shard = shard "
            "WHERE NOT EXISTS (FROM held later WHERE later.uid = held.uid AND later.__shard > held.__shard)"
        )
        con.execute("CREATE VIEW fresh AS SELECT __ordinal, uid FROM listed")
        if count := _count(con, "listed"):
            _append(con, storage, scratch, size, revised="retried")
        return count


def _listed(source: Source, scratch: Path, progress: Callable[[int], None]) -> list[Path]:
    """The list as Parquet, or those of a union's members. Raises SourceError where there is no pair."""
    if source.pairs is not None:
        _ingest(lists.read(source.pairs, scratch), scratch / "listed.parquet", 0, progress)
        return [scratch / "listed.parquet"]
    if not source.union:
        raise SourceError(f"{source.name}: the embedded source has no list until it is served")
    found: list[Path] = []
    rows = 0
    for member, share in members(source):
        assert member.pairs is not None
        found.append(scratch / f"listed-{len(found)}.parquet")
        drawn = (_drawn(batch, member.name, share) for batch in lists.read(member.pairs, scratch))
        rows = _ingest(drawn, found[-1], rows, progress)
    if not rows:
        raise SourceError(f"{source.name}: no pair of its members is drawn: raise the shares in [union]")
    return found


def _drawn(batch: pa.RecordBatch, name: str, share: float) -> pa.RecordBatch:
    """The pairs that are of the union, and whence. A larger share holds all pairs of a smaller one."""
    uids = _uids(batch)
    batch = batch.append_column(ORIGIN, pa.array([name] * len(uids), pa.string()))
    return batch.filter(pa.array(shares(draws("union", uids)) < share))


def _uids(batch: pa.RecordBatch) -> list[str]:
    return [uid(*pair) for pair in zip(batch["url"].to_pylist(), batch["caption"].to_pylist(), strict=True)]


def _ingest(batches: Iterable[pa.RecordBatch], target: Path, ordinal: int, progress: Callable[[int], None]) -> int:
    """Write a list as Parquet with each row's ordinal, from `ordinal`, uid and entry. Gives the next ordinal."""
    writer = None
    for batch in batches:
        extra = batch.schema.names[2:]
        uids = _uids(batch)
        made = [
            pa.array(range(ordinal, ordinal + len(batch)), pa.int64()),
            pa.array(uids),
            _entries(uids, batch, extra),
        ]
        table = pa.record_batch([*made, *batch.columns], names=["__ordinal", "uid", "entry", *batch.schema.names])
        writer = writer or pq.ParquetWriter(target, table.schema, compression="zstd", compression_level=1)
        writer.write_batch(table)
        ordinal += len(batch)
        progress(ordinal)
    if writer:
        writer.close()
    return ordinal


def _entries(uids: list[str], batch: pa.RecordBatch, extra: list[str]) -> pa.Array:
    if not extra:
        return pa.array(uids)
    rows = batch.select(extra).to_pylist()
    texts = (json.dumps([key, row], sort_keys=True, default=str) for key, row in zip(uids, rows, strict=True))
    return pa.array([hashlib.blake2b(text.encode(), digest_size=16).hexdigest() for text in texts])


def _compare(con: duckdb.DuckDBPyConnection, listed: list[Path], shards: list[Path]) -> None:
    """Leave the tables `now` (first row of each uid), `seen` (entries of the ledger) and `fresh` (to be appended)."""
    con.execute(f"CREATE VIEW listed AS FROM {duck.parquet(listed, 'union_by_name')}")
    con.execute(
        "CREATE TABLE now AS SELECT __ordinal, uid, entry FROM listed SEMI JOIN "
        "(SELECT min(__ordinal) AS __ordinal FROM listed GROUP BY uid) USING (__ordinal)"
    )
    con.execute("CREATE TABLE seen (shard INTEGER, uid VARCHAR, entry VARCHAR)")
    _see(con, shards)
    con.execute("CREATE TABLE fresh AS SELECT __ordinal, uid FROM now ANTI JOIN seen USING (entry)")


def _see(con: duckdb.DuckDBPyConnection, shards: list[Path]) -> None:
    if shards:
        con.execute(f"INSERT INTO seen SELECT {SHARD_NUMBER}, uid, entry FROM {duck.parquet(shards, 'filename')}")


def _append(
    con: duckdb.DuckDBPyConnection,
    storage: Storage,
    scratch: Path,
    size: int,
    asked: Blocked = Blocked(),  # noqa: B008 - it is frozen
    revised: Literal["retried"] | None = None,
) -> list[Shard]:
    """Cut the fresh pairs into shards and commit them together: after a crash all of them are new again, or none.

    Those that were asked to be removed before they came leave no words, and their uids join the block list.
    """
    start = 1 + max((shard.number for shard in committed(storage)), default=-1)
    shards: list[Shard] = []
    late: set[str] = set()
    for number, table in enumerate(_cut(con, size), start):
        gone = asked.among(table)
        late.update(table.filter(gone)["uid"].to_pylist())
        shards.append(put_shard(storage, scratch, number, wordless(table, gone), revised))
    Blocked(uids=frozenset(late - asked.uids)).commit(storage)
    commit(storage, shards)
    return shards


def wordless(pairs: pa.Table, gone: pa.BooleanArray) -> pa.Table:
    """A shard's pairs, of which those that are gone keep what tells that they were seen, and nothing else."""
    if not gone.true_count:
        return pairs
    return blocklist.blank(pairs, gone, ("uid", "entry", "url_number"), {"url": "", "caption": ""})


def _cut(con: duckdb.DuckDBPyConnection, size: int) -> Iterator[pa.Table]:
    """Tables of about `size` pairs in ledger order: by a URL's first appearance, the pairs of one URL together.

    A shard begins with the first URL at or after each multiple of `size`, so that the last URL's captions may make it
    longer. Rows without a URL are nobody's neighbours.
    """
    reader = con.sql(
        f"""
        WITH rows AS (SELECT *, CASE url WHEN '' THEN uid ELSE url END AS __page
                      FROM listed SEMI JOIN fresh USING (__ordinal)),
        pages AS (SELECT __page, min(__ordinal) AS first, count(*) AS pairs FROM rows GROUP BY __page),
        slots AS (SELECT __page, first, ((sum(pairs) OVER (ORDER BY first) - pairs) // {size})::BIGINT AS __slot
                  FROM pages),
        numbers AS (SELECT __page, __slot,
                           (row_number() OVER (PARTITION BY __slot ORDER BY first) - 1)::INTEGER AS url_number
                    FROM slots)
        SELECT __slot, uid, entry, url, caption, url_number,
               rows.* EXCLUDE (__ordinal, __page, uid, entry, url, caption)
        FROM rows JOIN numbers USING (__page) ORDER BY __slot, url_number, __ordinal
        """
    ).to_arrow_reader(lists.ROWS)
    held: list[pa.Table] = []
    for batch in reader:
        table = pa.Table.from_batches([batch])
        for slot in pc.unique(table["__slot"]):
            part = table.filter(pc.equal(table["__slot"], slot))
            if held and held[0]["__slot"][0] != slot:
                yield _joined(held)
                held = []
            held.append(part)
    if held:
        yield _joined(held)


def _joined(parts: list[pa.Table]) -> pa.Table:
    return pa.concat_tables(parts).drop_columns(["__slot"]).combine_chunks()


def _snapshot(con: duckdb.DuckDBPyConnection, storage: Storage, scratch: Path, amended: int) -> Ledger:
    total, rows = _count(con, "listed"), _count(con, "now")
    found = con.execute("SELECT DISTINCT shard FROM seen SEMI JOIN now USING (entry)").fetchall()
    alive = {number for (number,) in found}
    entries = con.sql("SELECT entry FROM now ORDER BY entry").to_arrow_table()
    digest = hashlib.sha256(f"{total} rows\n".encode())
    for batch in entries.to_batches(lists.ROWS):
        digest.update("".join(batch["entry"].to_pylist()).encode())
    current = None
    if _count(con, "(FROM seen ANTI JOIN now USING (entry))"):
        current = current_key(digest.hexdigest())
        local = scratch / "current.parquet"
        pq.write_table(entries, local, compression="zstd")
        storage.put_file(current, local)
    return Ledger(
        shards=tuple(shard for shard in committed(storage) if shard.number in alive),
        current=current,
        digest=digest.hexdigest(),
        input=total,
        repeated=total - rows,
        rows=rows,
        new=_count(con, "fresh"),
        amended=amended,
        gone=_count(con, "(SELECT DISTINCT uid FROM seen ANTI JOIN now USING (uid))"),
    )


def _count(con: duckdb.DuckDBPyConnection, table: str) -> int:
    ((count,),) = con.execute(f"SELECT count(*) FROM {table}").fetchall()
    return int(count)
