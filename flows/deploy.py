"""Every source file as a Prefect deployment, and automatic retraining on new manifests."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, cast
from uuid import UUID

from prefect.deployments.runner import RunnerDeployment
from prefect.events import DeploymentEventTrigger
from prefect.runner import Runner
from prefect.types.entrypoint import EntrypointType

from flows import interrupted
from flows.curate import curate
from flows.events import PUBLISHED
from flows.retrain import reconcile, retrain
from pipeline.errors import SourceError
from pipeline.process import lifeline
from pipeline.sources import loading
from pipeline.sources.source import Source

RECONCILE = timedelta(hours=1)

AT_ONCE = 4
"""Runs of all deployments together. Two runs of one source do not work side by side: the second one fails."""


class _Runner(Runner):
    """Ends at SIGTERM as at Ctrl-C. Prefect 3.8's own handler leaves runs at work, and prints tracebacks."""

    async def start(self, run_once: bool = False, webserver: bool | None = None) -> None:
        """Work until cancelled."""
        self._loop, self._working = asyncio.get_running_loop(), asyncio.current_task()
        await super().start(run_once, webserver)

    def handle_sigterm(self, *_: Any) -> None:
        """Cancel `start`. SIGINT would not do: a shell's background job ignores it."""
        if self._loop and self._working:
            self._loop.call_soon_threadsafe(self._working.cancel)


def run(root: Path, echo: Callable[[str], None], own: bool) -> None:
    """Serve all deployments until Ctrl-C or SIGTERM, on the API of the environment. `echo` prints a line.

    If the server is this command's `own`, runs that its end interrupts are scheduled again, and so are those that an
    earlier end left unfinished. On another server they may be at work elsewhere.
    """
    served = deployments(root.resolve(), echo)
    for each in served:
        description = f"   {each.description}" if each.description else ""
        echo(f"  {each.flow_name}/{each.name}{description}")
    runner = _Runner(pause_on_shutdown=True, limit=AT_ONCE)
    added = [cast(UUID, runner.add_deployment(each)) for each in served]
    if own and (count := interrupted.schedule_again(added)):
        echo(f"{count} runs that were interrupted are resumed")
    lifeline.lead()
    try:
        asyncio.run(runner.start())
    except (KeyboardInterrupt, asyncio.CancelledError):
        echo("stopping")
    finally:
        if own:
            interrupted.schedule_again(added)


def deployments(root: Path, echo: Callable[[str], None]) -> list[RunnerDeployment]:
    """curate/<name> for each source file, retrain/on-manifest and reconcile/hourly.

    A source file that cannot be served is reported in one line, and does not stop the others.
    """
    found: dict[str, RunnerDeployment] = {}
    for path in loading.source_files():
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


def _curate(described: Source, root: Path) -> RunnerDeployment:
    return RunnerDeployment.from_flow(
        curate,
        name=described.name,
        parameters={"source": str(described.path), "root": str(root)},
        cron=described.schedule,
        entrypoint_type=EntrypointType.MODULE_PATH,
        description=f"at {described.schedule} UTC" if described.schedule else "when asked",
    )


def _on_manifest(root: Path) -> RunnerDeployment:
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


def _hourly(root: Path) -> RunnerDeployment:
    return RunnerDeployment.from_flow(
        reconcile,
        name="hourly",
        interval=RECONCILE,
        parameters={"root": str(root)},
        entrypoint_type=EntrypointType.MODULE_PATH,
        description="every hour, for manifests that no run measured",
    )
