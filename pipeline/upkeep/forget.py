"""Taking pairs down: what somebody asks to be removed leaves storage, and does not come back.

The request is committed to the block list. Then the pairs lose their URL, caption and extra columns in the ledger,
their picture in the shards' tars, their scores and embeddings, and everything that training derived from their shards.
Their rows stay as failed ones with the cause `forgotten`, so that every row of the source is still accounted for. A
manifest without them is published, and the parts of older manifests are removed; opening one of these says so. Each
step is safe to do twice, and an interrupted takedown is finished by the next writer (`pipeline.takedown.writing`).
"""

from pipeline.errors import SourceError, WinnowError
from pipeline.ledger import blocklist
from pipeline.manifest import publish
from pipeline.manifest.log import commits
from pipeline.manifest.manifest import Manifest
from pipeline.redact import redact
from pipeline.review.sample_source import sample_storage
from pipeline.scoring import pool
from pipeline.sources.source import Source
from pipeline.store.storage import Storage
from pipeline.takedown.request import Request
from pipeline.takedown.result import Takedown
from pipeline.takedown.targets import Targets, targets
from pipeline.takedown.writing import finishing
from pipeline.upkeep.backfill import from_manifest


def preview(storage: Storage, request: Request) -> Takedown:
    """How many pairs of the source `forget` would take down, and which names fit none. Changes nothing."""
    return _counted(targets(storage, request), request, Takedown())


def forget(storage: Storage, request: Request, source: Source | None) -> Takedown:
    """Take down what the request names, and publish the rest under the recipe of the newest manifest, if there is one.

    Without the source's file, or if its settings have changed, nothing can be published: `fault` says so, and what was
    named is gone all the same. The labelled sample of `winnow calibrate` is purged too, and made anew when needed.
    Raises BusyError if another run writes.
    """
    result = Takedown()
    sample = sample_storage(storage)
    with sample.lock():
        targets(sample, request).blocked.commit(sample)
        with finishing(sample, result):
            pass
    with storage.lock():
        found = targets(storage, request)
        _counted(found, request, result)
        found.blocked.commit(storage, found.unmatched_digests)
        with finishing(storage, result):
            try:
                if commits(storage):
                    result.manifest, result.new = _publish(storage, source)
            except WinnowError as error:
                result.fault = f"all that was named is gone, but nothing could be published: {error}"
    return result


def _counted(found: Targets, request: Request, result: Takedown) -> Takedown:
    result.names, result.pairs, result.unknown = len(request), found.pairs, len(found.unmatched)
    result.unmatched = tuple(map(redact, found.unmatched))
    return result


def _publish(storage: Storage, source: Source | None) -> tuple[str, bool]:
    """The id of the newest manifest, published anew if pairs of it are to go, and whether it is new."""
    newest = Manifest.open(storage)
    if not blocklist.pending(storage).uids:
        return newest.id, False
    if source is None:
        raise SourceError(f"no source file is called {storage.name!r}; name it by its path, or run `winnow curate`")
    left = from_manifest(source, newest)
    left.plan.check_targets()
    pool.run(left.plan, storage, left.ledger, left.quarantined)
    published = publish.publish(left.plan, storage, left.ledger, left.quarantined, newest.recipe)
    return published.id, published.new
