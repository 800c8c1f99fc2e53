"""The event that starts retraining on a new manifest."""

from prefect.events import emit_event

from flows.server import send_events
from pipeline.manifest.manifest import Manifest
from pipeline.review import drift
from pipeline.sources.source import Source
from pipeline.store.places import Place
from pipeline.store.storage import Storage

PUBLISHED = "winnow.manifest.published"
"""The event after a commit. Its payload: source (a path), root and manifest, which are the parameters of `retrain`."""


def announce(described: Source, root: Place, manifest: str) -> str | None:
    """Emit the event for a new manifest, unless its inputs drifted beyond the source's bound.

    Returns why no training follows, or None if the event was sent.
    """
    storage = Storage(root / described.name)
    held = drift.hold(described, storage, Manifest.open(storage, manifest))
    if held is None:
        emit(described, root, manifest)
    return held


def emit(described: Source, root: Place, manifest: str) -> None:
    """Emit the event, and wait until the server has it."""
    emit_event(
        event=PUBLISHED,
        resource={"prefect.resource.id": f"winnow.source.{described.name}", "prefect.resource.name": described.name},
        payload={"source": str(described.path), "root": str(root.resolve()), "manifest": manifest},
    )
    send_events()
