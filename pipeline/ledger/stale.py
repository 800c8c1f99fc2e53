"""Finds pairs of the ledger that no longer count."""

from pipeline.ledger.ledger import SHARD_NUMBER, Ledger, pairs_files
from pipeline.store import duck
from pipeline.store.storage import Storage


def stale(storage: Storage, ledger: Ledger) -> dict[int, list[int]]:
    """The positions of pairs that do not count, ascending, by shard number.

    A pair does not count if it left the source, if its extra columns changed, or if a later shard has it again.
    """
    if ledger.current is None and ledger.revision is None:
        return {}
    shards = duck.parquet(pairs_files(storage, ledger.shards), "filename", "file_row_number")
    revised = pairs_files(storage, (shard for shard in ledger.shards if shard.revised))
    with storage.scratch() as scratch, duck.connect(scratch) as con:
        con.execute("CREATE TABLE later (entry VARCHAR, newest INTEGER)")
        if revised:
            rows = duck.parquet(revised, "filename")
            con.execute(f"INSERT INTO later SELECT entry, max({SHARD_NUMBER}) FROM {rows} GROUP BY entry")
        out = "number < newest"
        if ledger.current is not None:
            out += f" OR entry NOT IN (SELECT entry FROM {duck.parquet([storage.fetch(ledger.current)])})"
        found = con.execute(
            "SELECT number, list(position ORDER BY position) FROM "
            f"(SELECT {SHARD_NUMBER} AS number, file_row_number AS position, entry FROM {shards}) "
            f"LEFT JOIN later USING (entry) WHERE {out} GROUP BY number"
        ).fetchall()
    return dict(found)
