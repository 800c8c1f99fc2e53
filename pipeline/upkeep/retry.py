"""Fetching failed pairs once more, if their cause may have passed.

They are appended to the ledger again, in shards of their own; the newest shard that holds a pair counts. Earlier
results stay. After a kill, the next run continues the attempt that was begun.
"""

from collections.abc import Collection

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import SourceError, did_you_mean
from pipeline.failure import CHANGED_FILE, FORGOTTEN, RETRY_LATER, is_transient
from pipeline.ledger import ingest
from pipeline.manifest.manifest import Manifest
from pipeline.sources.source import Source
from pipeline.status.published import failures_by_cause
from pipeline.store import duck
from pipeline.store.storage import Storage
from pipeline.upkeep.changed import fail_changed


def choose_causes(manifest: Manifest, causes: Collection[str]) -> list[str]:
    """The causes to retry: those given, or without any, all of the manifest that may pass by themselves.

    Raises SourceError for a cause that no pair has, and for `forgotten`, which is never retried. No row shows
    `changed_file` before the files were read again.
    """
    known = failures_by_cause(manifest)
    for cause in causes:
        if cause == FORGOTTEN:
            raise SourceError("pairs that were taken down are not fetched again: remove --cause forgotten")
        if cause not in known and cause != CHANGED_FILE:
            raise SourceError(f"no pair failed with the cause {cause!r}{did_you_mean(cause, known)}")
    return sorted(causes or (cause for cause in known if cause in RETRY_LATER or is_transient(cause)))


def append(source: Source, storage: Storage, causes: Collection[str]) -> int:
    """Append the pairs of the newest manifest that failed with these causes (`choose_causes`); gives how many.

    With `changed_file`, those whose files have changed since they were taken are among them.
    """
    manifest = Manifest.open(storage)
    wanted = choose_causes(manifest, causes)
    with manifest.connection() as con:
        among = f"[{', '.join(map(duck.literal, wanted))}]::VARCHAR[]"
        failed = con.sql(f"SELECT uid, shard FROM rows WHERE status = 'failed' AND list_contains({among}, cause)")
        pairs = failed.to_arrow_table()
    if CHANGED_FILE in wanted:
        changed = fail_changed(source, storage)
        others = pairs.filter(pc.invert(pc.is_in(pairs["uid"], changed["uid"])))
        pairs = pa.concat_tables([changed, others.cast(changed.schema)])
    return ingest.retry(storage, pairs, source.download.shard_size)
