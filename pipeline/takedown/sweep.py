"""Removing what only older manifests are made of, and what was derived from it: their words are those of lost pairs."""

import json
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.ledger.ledger import committed
from pipeline.manifest import database
from pipeline.manifest.log import commits
from pipeline.manifest.manifest import Manifest
from pipeline.store.storage import Storage
from pipeline.takedown.purge import among, remove
from pipeline.takedown.result import Takedown


def sweep(storage: Storage, uids: frozenset[str], result: Takedown) -> None:
    """Remove parts of older manifests with these pairs, replaced ledger shards, unused pool scores, and pages.

    Safe to do twice; counts go into `result`.
    """
    _sweep_ledger(storage, result)
    _sweep_rows(storage, uids, result)
    newest = Manifest.open(storage) if commits(storage) else None
    if newest is not None and not newest.complete:
        newest = None
    _sweep_pool_scores(storage, newest, result)
    for key in (*storage.find("*.html"), database.KEY):
        if storage.done(key):
            remove(storage, key, result)
    if newest is not None:
        database.refresh(storage)


def _sweep_ledger(storage: Storage, result: Takedown) -> None:
    current = {shard.key for shard in committed(storage)}
    for key in storage.find("pairs/[0-9]*.parquet"):
        if key not in current:
            remove(storage, key, result)


def _sweep_rows(storage: Storage, uids: frozenset[str], result: Takedown) -> None:
    """Remove the parts in which one of these pairs still has a URL or a caption."""
    for key in storage.find("rows/*.parquet"):
        rows = pq.read_table(storage.fetch(key), columns=["uid", "url", "caption"], partitioning=None)
        words = rows.filter(among(rows, uids)).drop_columns(["uid"])
        if any(pc.any(pc.not_equal(column, "")).as_py() for column in words.columns):
            remove(storage, key, result)


def _sweep_pool_scores(storage: Storage, newest: Manifest | None, result: Takedown) -> None:
    """Remove scores of the whole pool that are not those of the newest manifest; all of them if it has lost rows."""
    in_use: set[str] = set()
    if newest is not None:
        in_use = {f"{name}-{key}" for name, key in newest.stages.scores.items()}
    for key in storage.find("scores/*/key.json"):
        folder = Path(key).parent.name
        if folder not in in_use and "pool" in json.loads(storage.fetch(key).read_bytes()):
            for each in storage.keys(f"scores/{folder}"):
                remove(storage, each, result)
