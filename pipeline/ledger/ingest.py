"""Adds pairs to the ledger: new pairs of the list, or failed pairs again."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.ledger import blocklist
from pipeline.ledger.blocklist import Blocked
from pipeline.ledger.cutting import cut
from pipeline.ledger.ledger import SHARD_NUMBER, Ledger, Shard, commit, committed, current_key, pairs_files, put_shard
from pipeline.ledger.source_list import write_list
from pipeline.ledger.url_digests import matching_digests
from pipeline.schema import PLACE
from pipeline.sources.source import Source
from pipeline.store import duck
from pipeline.store.parquet import ROW_GROUP
from pipeline.store.storage import Storage


def update(
    source: Source,
    storage: Storage,
    progress: Callable[[int], None] = lambda rows: None,
    warn: Callable[[str], None] = lambda line: None,
) -> Ledger:
    """Read the source's list and append new pairs.

    `progress` is called with the number of rows read so far, and `warn` with warnings about the list. For a union, the
    lists of its members are read in order. `ORIGIN` is an extra column of the drawn pairs, and a pair of several
    members belongs to the first. Raises SourceError for a list that is empty or cannot be read, and appends nothing
    then.
    """
    with storage.scratch() as scratch, duck.connect(scratch) as con:
        files = write_list(source, scratch, progress, warn)
        _compare(con, files, pairs_files(storage, committed(storage)))
        amended = _count(con, "(FROM fresh SEMI JOIN seen USING (uid))")
        if _count(con, "fresh"):
            for line in _shared_urls(con):
                warn(line)
            blocked = blocklist.in_force(source, storage)
            # Apart, so that a shard of pairs whose extra columns changed needs no download.
            kinds = ("fresh SEMI JOIN seen USING (uid)", "fresh ANTI JOIN seen USING (uid)")
            appended = _append(con, storage, scratch, source.download.shard_size, blocked, kinds=kinds)
            _add_seen(con, pairs_files(storage, appended))
        return _snapshot(con, storage, scratch, amended)


def retry(storage: Storage, failed: pa.Table, size: int) -> int:
    """Append failed pairs again, for another download. Returns their number.

    `failed` has the columns uid and shard. A pair that a later shard holds is skipped, because that attempt is not
    published yet. `size` is the number of pairs in a shard.
    """
    shards = committed(storage)
    if not len(failed) or not shards:
        return 0
    first = min(failed["shard"].to_pylist())
    files = pairs_files(storage, (shard for shard in shards if shard.number >= first))
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
        count = _count(con, "listed")
        if count:
            _append(con, storage, scratch, size, revised="retried")
        return count


def wordless(pairs: pa.Table, gone: pa.BooleanArray) -> pa.Table:
    """The pairs of a shard.

    Pairs that are `gone` keep only uid, entry and url_number, so the ledger still knows them.
    """
    if not gone.true_count:
        return pairs
    return blocklist.blank(pairs, gone, ("uid", "entry", "url_number"), {"url": "", "caption": ""})


def _compare(con: duckdb.DuckDBPyConnection, files: Sequence[Path], shards: Sequence[Path]) -> None:
    """Create the tables `now` (first row of each uid), `seen` (entries of the ledger) and `fresh` (pairs to append)."""
    con.execute(f"CREATE VIEW listed AS FROM {duck.parquet(files, 'union_by_name')}")
    con.execute(
        "CREATE TABLE now AS SELECT __ordinal, uid, entry FROM listed SEMI JOIN "
        "(SELECT min(__ordinal) AS __ordinal FROM listed GROUP BY uid) USING (__ordinal)"
    )
    con.execute("CREATE TABLE seen (shard INTEGER, uid VARCHAR, entry VARCHAR)")
    _add_seen(con, shards)
    con.execute("CREATE TABLE fresh AS SELECT __ordinal, uid FROM now ANTI JOIN seen USING (entry)")


def _shared_urls(con: duckdb.DuckDBPyConnection) -> Iterator[str]:
    """A warning if URLs of local pictures have several places, of which one is taken for all."""
    if PLACE not in con.sql("FROM listed").columns:
        return
    found = f"SELECT url FROM listed WHERE url NOT IN ('', {PLACE}) GROUP BY url HAVING min({PLACE}) != max({PLACE})"
    count = _count(con, f"({found})")
    if count:
        yield (
            f"URLs with pictures at several places: {count:,}; the pairs of a URL get its first picture; set url = "
            '"" in [pairs] if the column is no address of the picture'
        )


def _add_seen(con: duckdb.DuckDBPyConnection, shards: Sequence[Path]) -> None:
    if shards:
        con.execute(f"INSERT INTO seen SELECT {SHARD_NUMBER}, uid, entry FROM {duck.parquet(shards, 'filename')}")


def _append(
    con: duckdb.DuckDBPyConnection,
    storage: Storage,
    scratch: Path,
    size: int,
    blocked: Blocked = Blocked(),  # noqa: B008 - it is frozen
    revised: Literal["retried"] | None = None,
    kinds: Sequence[str] = ("fresh",),
) -> list[Shard]:
    """Cut the fresh pairs into shards and commit them atomically: after a crash, all of them are new again, or none.

        Pairs that are blocked before they are seen leave no words. Their uids join the block list, and the digests
    that their URLs match join it again: these names fit a pair from now on.
    """
    start = 1 + max((shard.number for shard in committed(storage)), default=-1)
    shards: list[Shard] = []
    late: set[str] = set()
    matched: set[str] = set()
    for number, table in enumerate((table for kind in kinds for table in cut(con, size, kind)), start):
        gone = blocked.covers_rows(table)
        late.update(table.filter(gone)["uid"].to_pylist())
        matched.update(*map(matching_digests, table.filter(gone)["url"].to_pylist()))
        shards.append(put_shard(storage, scratch, number, wordless(table, gone), revised))
    if late - blocked.uids:
        Blocked(frozenset(late - blocked.uids), blocked.urls & matched).commit(storage)
    commit(storage, shards)
    return shards


def _snapshot(con: duckdb.DuckDBPyConnection, storage: Storage, scratch: Path, amended: int) -> Ledger:
    total, rows = _count(con, "listed"), _count(con, "now")
    found = con.execute("SELECT DISTINCT shard FROM seen SEMI JOIN now USING (entry)").fetchall()
    alive = {number for (number,) in found}
    entries = con.sql("SELECT entry FROM now ORDER BY entry").to_arrow_table()
    digest = hashlib.sha256(f"{total} rows\n".encode())
    for batch in entries.to_batches(ROW_GROUP):
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
