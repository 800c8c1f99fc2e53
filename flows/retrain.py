"""The flow `retrain`: what a manifest was worth, and the report. The flow `reconcile`: what was missed."""

from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_table_artifact

from flows.curate import SETTINGS, artifact
from flows.progress import shown
from flows.sources import opened
from pipeline.demo import world
from pipeline.errors import WinnowError
from pipeline.manifest import database
from pipeline.manifest.manifest import Manifest, log
from pipeline.pages import report
from pipeline.review import drift
from pipeline.sources import loading
from pipeline.sources.source import Source
from pipeline.store.storage import Storage
from pipeline.trials.trials import gain_of
from training.studies import gain, plot

REPORT = "report.html"
PLOT = "gain.svg"


@flow(name="retrain", persist_result=True, result_serializer="json")
def retrain(source: str, root: str = "data", manifest: str | None = None, recipe: str | None = None) -> dict[str, Any]:
    """Measure the gain of the newest manifest, or of the one named, and write the report. Trains nothing twice.

    A source without a [task] gets its report, and {} as its gain. With a named `recipe` that was not published the gain
    is of what it keeps of the same pairs; the report stays that of what was published.
    """
    described, storage = opened(source, Path(root))
    with world.served(described, storage) as served:
        found = measure(served, storage, manifest, recipe) if served.task else {}
    show(described, storage, manifest)
    return found


@flow(name="reconcile", persist_result=True, result_serializer="json")
def reconcile(root: str = "data") -> list[str]:
    """Retrain on each source's newest manifest that has no gain: an event lost with its process costs an hour, no more.

    Gives the names of those sources. A broken source file, or a run that fails, is logged and left out, and so is a
    manifest whose inputs drifted too far.
    """
    logger, done = get_run_logger(), []
    for path in loading.source_files():
        try:
            described, storage = opened(str(path), Path(root))
            if described.task is None or not log(storage) or gain_of(storage, Manifest.open(storage).id):
                continue
            if held := drift.hold(described, storage, Manifest.open(storage)):
                logger.warning("%s: %s", path.name, held)
                continue
            retrain(str(path), root)
            done.append(described.name)
        except WinnowError as error:
            logger.warning("%s: %s", path.name, error)
    return done


@task(name="gain", persist_result=True, **SETTINGS)
def measure(served: Source, storage: Storage, manifest: str | None, recipe: str | None) -> dict[str, Any]:
    """Train the trials that are missing, and leave the differences as a table and as a plot."""
    with shown() as tell:
        found = gain.measure(served, storage, manifest, tell, recipe)
    plot.forest(found, storage.root / (PLOT if found["published"] else f"gain-{found['recipe']}.svg"))
    says = found["metrics"][0][1]
    rows = [
        {"learner": learner["name"], "difference": each["name"], says: each["sentence"]}
        for learner in found["learners"]
        for each in learner["differences"]
    ]
    filters = found["filters"]
    rows += [
        {"learner": filters["learner"], "difference": each["name"], says: each["sentence"]}
        for each in filters["differences"]
    ]
    create_table_artifact(rows, key=artifact(served, "gain"), description=found["manifest"])
    return found


@task(name="report", **SETTINGS)
def show(described: Source, storage: Storage, manifest: str | None) -> None:
    """Write the report beside the source's results, and the catalogue, which knows the new trials."""
    found = Manifest.open(storage, manifest)
    report.write(storage, found, gain_of(storage, found.id), storage.root / REPORT)
    database.refresh(storage)
