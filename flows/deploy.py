"""Every source file as a Prefect deployment, and automatic retraining on new manifests."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.deployments.runner import RunnerDeployment
from prefect.events import DeploymentEventTrigger
from prefect.types.entrypoint import EntrypointType

from flows.curate import curate
from flows.events import PUBLISHED
from flows.retrain import reconcile, retrain
from pipeline.errors import SourceError
from pipeline.sources import loading
from pipeline.sources.source import Source
from pipeline.store.places import Place

RECONCILE = timedelta(hours=1)

ONE_AT_A_TIME = ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.ENQUEUE)
"""Of the runs of one source: a second one waits for the first. It is not cancelled, because the list may have grown
since the first one read it; if nothing is new it ends within seconds."""


def deployments(
    root: Place, echo: Callable[[str], None], files: Sequence[Path] | None = None
) -> list[RunnerDeployment]:
    """curate/<name> for each of these source files, by default all; retrain/on-manifest and reconcile/hourly.

    A source file that cannot be read is reported in one line, and does not stop the others.
    """
    found: dict[str, RunnerDeployment] = {}
    for path in loading.source_files() if files is None else files:
        try:
            described = loading.load(path)
            if described.name in found:
                other = Path(found[described.name].parameters["source"]).name
                raise SourceError(f"{path.name}: {other} has the name {described.name!r}, too: give one another name")
            found[described.name] = _curate(described, root)
        except SourceError as error:
            echo(f"left out: {error}")
        except Exception as error:  # noqa: BLE001 - the other sources are served
            echo(f"left out: {path.name}: {type(error).__name__}: {' '.join(str(error).split())}")
    return [*found.values(), _on_manifest(root), _hourly(root)]


def _curate(described: Source, root: Place) -> RunnerDeployment:
    return RunnerDeployment.from_flow(
        curate,
        name=described.name,
        parameters={"source": str(described.path), "root": str(root)},
        cron=described.schedule,
        concurrency_limit=ONE_AT_A_TIME,
        entrypoint_type=EntrypointType.MODULE_PATH,
        description=f"at {described.schedule} UTC" if described.schedule else "when asked",
    )


def _on_manifest(root: Place) -> RunnerDeployment:
    parameters: dict[str, Any] = {
        name: {"__prefect_kind": "jinja", "template": f"{{{{ event.payload.{name} }}}}"}
        for name in ("source", "root", "manifest")
    }
    trigger = DeploymentEventTrigger(
        name="winnow: a manifest was published",
        expect={PUBLISHED},
        match={"prefect.resource.id": "winnow.source.*"},
        parameters=parameters,
    )
    return RunnerDeployment.from_flow(
        retrain,
        name="on-manifest",
        triggers=[trigger],
        parameters={"source": "demo", "root": str(root)},
        entrypoint_type=EntrypointType.MODULE_PATH,
        description="when a manifest is published",
    )


def _hourly(root: Place) -> RunnerDeployment:
    return RunnerDeployment.from_flow(
        reconcile,
        name="hourly",
        interval=RECONCILE,
        concurrency_limit=ONE_AT_A_TIME,
        parameters={"root": str(root)},
        entrypoint_type=EntrypointType.MODULE_PATH,
        description="every hour, for manifests that no run measured",
    )
