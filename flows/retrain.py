"""The flows `retrain` (the gain of a manifest, and the report) and `reconcile` (manifests that no run measured)."""

from typing import Any

from prefect import flow, get_run_logger

from flows import run_names, sources, tasks
from pipeline.demo import world
from pipeline.errors import WinnowError
from pipeline.manifest.log import commits, newest
from pipeline.manifest.manifest import Manifest
from pipeline.review import drift
from pipeline.sources import loading
from pipeline.store.places import place
from pipeline.trials.trials import gain_of


@flow(name="retrain", flow_run_name=run_names.of_source, persist_result=True, result_serializer="json")
def retrain(source: str, root: str = "data", manifest: str | None = None, recipe: str | None = None) -> dict[str, Any]:
    """Measure the gain of a manifest, by default the newest, and write the report. Trains nothing twice.

    A source without a [task] gets its report, and {} as its gain. With a named `recipe` that was not published, the
    gain is that of the pairs that it keeps; the report is still about what was published.
    """
    described, storage = sources.load(source, place(root))
    run_names.rename(described.name, newest(storage, manifest))
    with world.served(described, storage) as served:
        gain = tasks.measure_gain(served, storage, manifest, recipe) if served.task else {}
    tasks.write_report(described, storage, manifest)
    return gain


@flow(name="reconcile", persist_result=True, result_serializer="json")
def reconcile(root: str = "data") -> list[str]:
    """Retrain on the newest manifest of each source if it has no gain, so that a lost event costs an hour at most.

    Returns the names of those sources. Logs and skips broken source files, runs that fail, and manifests whose inputs
    drifted too far.
    """
    logger, retrained = get_run_logger(), []
    for path in loading.source_files():
        try:
            described, storage = sources.load(str(path), place(root))
            if described.task is None or not commits(storage) or gain_of(storage, Manifest.open(storage).id):
                continue
            if held := drift.hold(described, storage, Manifest.open(storage)):
                logger.warning("%s: %s", path.name, held)
                continue
            retrain(str(path), root)
            retrained.append(described.name)
        except WinnowError as error:
            logger.warning("%s: %s", path.name, error)
    return retrained
