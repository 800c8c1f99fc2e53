"""Removing pairs from everything that a manifest is made of: ledger, shards, scores, embeddings, features, versions."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.failure import FORGOTTEN, TAKEN_DOWN
from pipeline.ledger import blocklist, ingest
from pipeline.ledger.ledger import committed, replace_shard
from pipeline.redact import redact
from pipeline.review.labels import Labels
from pipeline.store import tarfiles
from pipeline.store.parquet import ROW_GROUP
from pipeline.store.storage import Storage
from pipeline.takedown.result import Takedown


def purge(storage: Storage, uids: frozenset[str], result: Takedown) -> None:
    """Remove these pairs from all that a manifest is made of. Safe to do twice; counts go into `result`."""
    labels = Labels(storage)
    labelled = {(row["url"], row["caption"]) for row in labels.table.to_pylist()}
    for shard in committed(storage):
        table = pq.read_table(storage.fetch(shard.key), partitioning=None)
        gone = among(table, uids)
        if not gone.true_count:
            continue
        for row in table.filter(gone).select(["url", "caption"]).to_pylist() if labelled else ():
            if (pair := (redact(row["url"]), row["caption"])) in labelled:
                labels.remove({pair})
        _purge_results(storage, shard.number, gone, result)
        blank = ingest.wordless(table, gone)
        if not blank.equals(table):
            replace_shard(storage, shard, blank)
            result.rows += gone.true_count


def among(table: pa.Table, uids: frozenset[str]) -> pa.BooleanArray:
    """Which rows of a table have one of these uids."""
    return pc.is_in(table["uid"].combine_chunks(), pa.array(sorted(uids), pa.string()))


def remove(storage: Storage, key: str, result: Takedown) -> None:
    """Remove an object, and count it."""
    storage.remove(key)
    result.objects += 1


def _purge_results(storage: Storage, shard: int, gone: pa.BooleanArray, result: Takedown) -> None:
    """Remove the rows from all results of a shard, made with any settings. Each is read first: it may be done."""
    number = f"{shard:05d}"
    for key in storage.find(f"shards-*/{number}.parquet"):
        _blank_rows(storage, key, gone, {"status": "failed", "cause": FORGOTTEN, "error": TAKEN_DOWN})
        result.pictures += _remove_pictures(storage, key.removesuffix("parquet") + "tar", key)
    for key in storage.find(f"scores/*/{number}.parquet"):
        result.scores += _blank_rows(storage, key, gone, {})
    for key in storage.find(f"embeddings/*/{number}.npy"):
        result.embeddings += _blank_embeddings(storage, key, gone.to_numpy(zero_copy_only=False))
    held_out = f"features/*/{'[0-9a-f]' * 16}.npz"  # of pictures of any shard
    for pattern in (f"features/*/{number}-*", f"versions-*/{number}-*", held_out, "maps/*/map.parquet"):
        for key in storage.find(pattern):
            remove(storage, key, result)


def _blank_rows(storage: Storage, key: str, gone: pa.BooleanArray, values: Mapping[str, str]) -> int:
    """Replace a shard's Parquet by one whose `gone` rows have their uid, these values and NULL; gives how many changed.

    Gives 0 if the rows were blank before.
    """
    table = pq.read_table(storage.fetch(key), partitioning=None)
    blank = blocklist.blank(table, gone, ("uid",), values)
    if blank.equals(table):
        return 0
    with storage.scratch() as scratch:
        pq.write_table(blank, scratch / "rows.parquet", row_group_size=ROW_GROUP, compression="zstd")
        storage.put_file(key, scratch / "rows.parquet")
    return int(gone.true_count)


def _remove_pictures(storage: Storage, tar: str, rows: str) -> int:
    """Replace a tar by one with only the pictures that its rows name; gives how many were removed."""
    if not storage.done(tar):
        return 0
    path = storage.fetch(tar)
    named = set(pq.read_table(storage.fetch(rows), columns=["member"])["member"].to_pylist())
    lost = tarfiles.index(path).keys() - named
    if lost:
        with storage.scratch() as scratch:
            tarfiles.write(scratch / "tar", (each for each in tarfiles.read_stored(path) if each[0] not in lost))
            storage.put_file(tar, scratch / "tar")
    return len(lost)


def _blank_embeddings(storage: Storage, key: str, gone: npt.NDArray[np.bool_]) -> int:
    """Replace embeddings (float16 [pairs, 2, dim]) by NaN in the rows that are gone; gives how many had one."""
    stored: npt.NDArray[np.float16] = np.load(storage.fetch(key), allow_pickle=False)
    had = int(np.count_nonzero(~np.isnan(stored[gone]).all(axis=(1, 2))))
    if had:
        stored[gone] = np.nan
        with storage.scratch() as scratch:
            np.save(scratch / "rows.npy", stored)
            storage.put_file(key, scratch / "rows.npy")
    return had
