"""Every source file as a Prefect deployment, and the retraining that follows a manifest by itself."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from prefect import serve
from prefect.deployments.runner import RunnerDeployment
from prefect.events import DeploymentEventTrigger
from prefect.types.entrypoint import EntrypointType

from flows.curate import PUBLISHED, curate
from flows.retrain import reconcile, retrain
from pipeline.errors import SourceError
from pipeline.sources import loading

RECONCILE = timedelta(hours=1)

AT_ONCE = 4
"""Runs of all deployments together. Two of one source do not work beside each other: the second says so, and fails."""


def run(root: Path, tell: Callable[[str], None]) -> None:
    """Serve them all until Ctrl-C, on the API of the environment."""
    made = deployments(root.resolve(), tell)
    for each in made:
        tell(f"  {each.flow_name}/{each.name}" + (f"   {each.description}" if each.description else ""))
    serve(*made, print_starting_message=False, limit=AT_ONCE)


def deployments(root: Path, tell: Callable[[str], None]) -> list[RunnerDeployment]:
    """curate/<name> for each source file, retrain/on-manifest and reconcile/hourly. A broken source file is told."""
    made = []
    for path in loading.source_files():
        try:
            described = loading.load(path)
        except SourceError as error:
            tell(f"left out: {error}")
            continue
        when = f"at {described.schedule} UTC" if described.schedule else "when asked"
        deployment = RunnerDeployment.from_flow(
            curate,
            name=described.name,
            parameters={"source": str(path), "root": str(root)},
            cron=described.schedule,
            entrypoint_type=EntrypointType.MODULE_PATH,
            description=when,
        )
        made.append(deployment)
    return [*made, _on_manifest(root), _hourly(root)]


def _on_manifest(root: Path) -> RunnerDeployment:
    told: dict[str, Any] = {
        name: {"__prefect_kind": "jinja", "template": f"{{{{ event.payload.{name} }}}}"}
        for name in ("source", "root", "manifest")
    }
    trigger = DeploymentEventTrigger(
        name="winnow: a manifest was published",
        expect={PUBLISHED},
        match={"prefect.resource.id": "winnow.source.*"},
        parameters=told,
    )
    return RunnerDeployment.from_flow(
        retrain,
        name="on-manifest",
        triggers=[trigger],
        parameters={"source": "demo", "root": str(root)},
        entrypoint_type=EntrypointType.MODULE_PATH,
        description="when a manifest is published",
    )


def _hourly(root: Path) -> RunnerDeployment:
    return RunnerDeployment.from_flow(
        reconcile,
        name="hourly",
        interval=RECONCILE,
        parameters={"root": str(root)},
        entrypoint_type=EntrypointType.MODULE_PATH,
        description="looks every hour for manifests that nobody measured",
    )
