"""Pictures whose files have changed since they were taken: their rows fail, until they are taken again."""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.download import by_source
from pipeline.failure import CHANGED_FILE
from pipeline.ledger import blocklist
from pipeline.ledger.ledger import committed
from pipeline.sources.source import Source
from pipeline.store import tarfiles
from pipeline.store.references import is_lost
from pipeline.store.storage import Storage

_ERROR = "its file has changed since it was taken"


def fail_changed(source: Source, storage: Storage) -> pa.Table:
    """Read every file that a shard refers to. Pairs of those that are missing, or have other bytes, become failed rows.

    Returns these pairs: uid and shard. What shards have of the others stays. Safe to do twice.
    """
    found = [pa.table({"uid": pa.array([], pa.string()), "shard": pa.array([], pa.int32())})]
    for number, rows, lost in _changed(source, storage):
        gone = rows.filter(lost)["uid"]
        found.append(pa.table({"uid": gone, "shard": pa.array([number] * len(gone), pa.int32())}))
    return pa.concat_tables(found)


def _changed(source: Source, storage: Storage) -> Iterator[tuple[int, pa.Table, pa.BooleanArray]]:
    stage = by_source.stage(source)
    for shard in committed(storage):
        tar, parquet = (stage.item(shard.number, suffix) for suffix in (".tar", ".parquet"))
        if not storage.done(tar) or not storage.done(parquet):
            continue
        stored = storage.fetch(tar)
        members = [name for name, content in tarfiles.read_stored(stored) if is_lost(content)]
        rows = pq.read_table(storage.fetch(parquet))
        lost = pc.is_in(rows["member"].combine_chunks(), pa.array(members, pa.string()))
        if members:
            blank = blocklist.blank(rows, lost, ("uid",), {"status": "failed", "cause": CHANGED_FILE, "error": _ERROR})
            with storage.scratch() as scratch:
                others = (each for each in tarfiles.read_stored(stored) if each[0] not in members)
                tarfiles.write(scratch / "tar", others)
                pq.write_table(blank, scratch / "parquet", compression="zstd")
                storage.put_file(parquet, scratch / "parquet")  # before the tar: rows name no member that is gone
                storage.put_file(tar, scratch / "tar")
            yield shard.number, rows, lost
