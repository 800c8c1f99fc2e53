"""The status of a source whose last run left no record, from its newest manifest; and what a manifest has lost."""

from pipeline.errors import StorageError
from pipeline.manifest import card
from pipeline.manifest.document import Document
from pipeline.manifest.log import commits
from pipeline.manifest.manifest import Manifest
from pipeline.status.progress import Status, progress
from pipeline.status.record import Step
from pipeline.store.storage import Storage


def status(storage: Storage) -> Status:
    """Raises StorageError if nothing is published either."""
    known = commits(storage)
    if not known:
        raise StorageError(
            f"nothing is there yet of {storage.name} in {storage.root.parent}: run `winnow curate` first"
        )
    if gone := lost(storage):
        return Status(storage.name, "published", (), 0, {}, 0, {}, gone, known[-1].id)
    manifest = Manifest.open(storage)
    with manifest.connection() as con:
        shards = [number for (number,) in con.execute("SELECT DISTINCT shard FROM rows ORDER BY 1").fetchall()]
        query = "SELECT shard, any_value(error) FROM rows WHERE status = 'quarantined' GROUP BY 1"
        quarantined = dict(con.execute(query).fetchall())
    return Status(
        source=storage.name,
        state="published",
        stages=tuple(
            progress(step, len(shards), step.missing(storage, shards), quarantined, finished=True)
            for step in _steps(manifest)
        ),
        pairs=manifest.counts.input - manifest.counts.repeated,
        failed=failures_by_cause(manifest),
        counted=len(shards) - len(quarantined),
        quarantined=quarantined,
        manifest=manifest.id,
    )


def failures_by_cause(manifest: Manifest) -> dict[str, int]:
    """The failed pairs of a manifest by cause, the most frequent first."""
    with manifest.connection() as con:
        query = "SELECT coalesce(cause, 'unknown') AS c, count(*) AS n FROM rows WHERE status = 'failed' GROUP BY 1"
        return dict(con.execute(f"{query} ORDER BY n DESC, c").fetchall())


def lost(storage: Storage) -> tuple[str, ...]:
    """Keys of the newest manifest that do not exist: itself, its rows, its verdicts. Reads none of the rows."""
    known = commits(storage)
    if not known:
        return ()
    key = f"manifests/{known[-1].id}.json"
    if not storage.done(key):
        return (key,)
    document = Document.parse(storage.fetch(key).read_bytes())
    keys = (*(part.key for part in document.inputs.rows), *document.verdicts, card.key(known[-1].id))
    return tuple(key for key in keys if not storage.done(key))


def _steps(manifest: Manifest) -> list[Step]:
    scores = [Step(name, {f"scores/{name}-{key}": [".parquet"]}) for name, key in manifest.stages.scores.items()]
    return [Step("download", {f"shards-{manifest.stages.shards}": [".tar", ".parquet"]}), *scores]
