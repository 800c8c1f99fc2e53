"""Pairs of the ledger that are not in the source any more."""

from pathlib import Path

import pyarrow as pa

from pipeline.ledger.ledger import Ledger
from pipeline.store import duck
from pipeline.store.storage import Storage


def stale(storage: Storage, ledger: Ledger) -> dict[int, list[int]]:
    """By shard, the positions of pairs that are not in the source any more, not with these extra columns, or in a
    later shard once more."""
    if ledger.current is None and ledger.revision is None:
        return {}
    files = {str(storage.fetch(shard.key)): shard.number for shard in ledger.shards}
    numbers = pa.table({"filename": list(files), "number": list(files.values())})
    revised = [storage.fetch(shard.key) for shard in ledger.shards if shard.revised]
    with storage.scratch() as scratch, duck.connect(scratch) as con:
        con.from_arrow(numbers).create("numbers")
        con.execute("CREATE TABLE later (entry VARCHAR, newest INTEGER)")
        if revised:
            shards = f"{duck.parquet(revised, 'filename')} JOIN numbers USING (filename)"
            con.execute(f"INSERT INTO later SELECT entry, max(number) FROM {shards} GROUP BY entry")
        out = "number < newest"
        if ledger.current is not None:
            current = duck.parquet([storage.fetch(ledger.current)])
            out += f" OR entry NOT IN (SELECT entry FROM {current})"
        found = con.execute(
            "SELECT number, list(file_row_number ORDER BY file_row_number) FROM "
            f"{duck.parquet(map(Path, files), 'filename', 'file_row_number')} "
            f"JOIN numbers USING (filename) LEFT JOIN later USING (entry) WHERE {out} GROUP BY number"
        ).fetchall()
    return dict(found)
