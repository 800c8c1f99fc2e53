"""Fetching failed pairs once more, if their cause may have passed.

They are appended to the ledger again, in shards of their own; the newest shard that holds a pair counts. Earlier
results stay. After a kill, the next run continues the attempt that was begun.
"""

from collections.abc import Collection, Mapping

from pipeline.errors import SourceError, did_you_mean
from pipeline.failure import FORGOTTEN, RETRY_LATER, is_transient
from pipeline.ledger import ingest
from pipeline.manifest.manifest import Manifest
from pipeline.sources.source import Source
from pipeline.store import duck
from pipeline.store.storage import Storage


def failure_counts(manifest: Manifest) -> Mapping[str, int]:
    """How many pairs failed, by cause."""
    with manifest.connection() as con:
        found = con.execute("SELECT cause, count(*) FROM rows WHERE status = 'failed' GROUP BY cause").fetchall()
    return dict(found)


def choose_causes(manifest: Manifest, causes: Collection[str]) -> list[str]:
    """The causes to retry: those given, or without any, all of the manifest that may pass by themselves.

    Raises SourceError for a cause that no pair has, and for `forgotten`, which is never retried.
    """
    known = failure_counts(manifest)
    for cause in causes:
        if cause == FORGOTTEN:
            raise SourceError("pairs that were taken down are not fetched again: remove --cause forgotten")
        if cause not in known:
            raise SourceError(f"no pair failed with the cause {cause!r}{did_you_mean(cause, known)}")
    return sorted(causes or (cause for cause in known if cause in RETRY_LATER or is_transient(cause)))


def append(source: Source, storage: Storage, causes: Collection[str]) -> int:
    """Append the pairs of the newest manifest that failed with these causes (`choose_causes`); gives how many."""
    manifest = Manifest.open(storage)
    wanted = choose_causes(manifest, causes)
    with manifest.connection() as con:
        among = f"[{', '.join(map(duck.literal, wanted))}]::VARCHAR[]"
        failed = con.sql(f"SELECT uid, shard FROM rows WHERE status = 'failed' AND list_contains({among}, cause)")
        return ingest.retry(storage, failed.to_arrow_table(), source.download.shard_size)
