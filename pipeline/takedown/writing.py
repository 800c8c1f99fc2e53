"""Opening a store for writing: one writer at a time, and a takedown that was interrupted is finished first.

The request of a takedown is committed to the block list before anything is removed (`pipeline.ledger.blocklist`).
Killed at any moment, the next writer of the source finishes it.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.ledger import blocklist
from pipeline.sources import owner
from pipeline.sources.source import Source
from pipeline.store.storage import Storage
from pipeline.takedown.purge import purge
from pipeline.takedown.result import Takedown
from pipeline.takedown.sweep import sweep


@contextmanager
def writing(storage: Storage, source: Source | None = None) -> Iterator[None]:
    """Be the only writer of a store, which holds the results of the source.

    Every command that writes opens its store with this, but `winnow gc`, which removes nothing while a takedown is not
    finished: `Storage.lock` alone does not finish one. Raises
    BusyError if there is another writer, SourceError if the results are of another source file with the same name.
    """
    with storage.lock():
        if source is not None:
            owner.claim(source, storage)
        with finishing(storage, Takedown()):
            yield


@contextmanager
def finishing(storage: Storage, result: Takedown) -> Iterator[None]:
    """Remove what is on the block list and may still be stored. The caller holds the lock; counts go into `result`.

    What manifests are made of is purged before the block, older manifests are swept after it, when the block has
    published a newer one. If the block raises, the next writer does all of it again.
    """
    uids = blocklist.pending(storage).uids
    if uids:
        purge(storage, uids, result)
    try:
        yield
    finally:
        if uids:
            sweep(storage, uids, result)
    blocklist.mark_done(storage)
