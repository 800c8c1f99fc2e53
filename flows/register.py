"""`winnow deploy`: deployments for the workers of a pool, and automations that run dead runs again."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import WorkPool
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import ObjectNotFound
from prefect.workers.utilities import get_default_base_job_template_for_infrastructure_type

from flows import deploy
from pipeline.errors import WinnowError
from pipeline.store.places import Place

TAG = "winnow"
"""Of all deployments of a pool and of their runs. `AUTOMATIONS` match it."""

HEARTBEAT = 30
"""Seconds between two heartbeats of a run, the least that Prefect allows. `AUTOMATIONS` wait three times as long."""

AUTOMATIONS = Path(__file__).with_name("automations.yaml")


def register(root: Place, pool: str, kind: str, files: Sequence[Path] | None, echo: Callable[[str], None]) -> None:
    """Register the deployments of these source files, by default all, and the automations. Safe to repeat.

    Uses the API of the environment. A pool that does not exist is created as one of this kind. `echo` prints a line.
    Raises WinnowError for an unknown kind of pool.
    """
    found = deploy.deployments(root.resolve(), echo, files)
    with get_client(sync_client=True) as client:
        existing = _work_pool(client, pool, kind)
        echo(f"work pool {pool} ({existing.type})")
        for each in found:
            each.work_pool_name = pool
            each.tags = [TAG, each.name]
            each.job_variables = job_variables(existing.type)
            each.apply()
            echo(f"  {each.full_name}   {each.description}")
        for automation in automations():
            _replace(client, automation)
            echo(f"  automation   {automation.name}")


def job_variables(kind: str) -> dict[str, Any]:
    """Of every run: how often it sends a heartbeat; for processes also the folder, which is that of this command."""
    variables: dict[str, Any] = {"env": {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT), "PYTHONSAFEPATH": "1"}}
    return variables | {"working_dir": str(Path.cwd())} if kind == "process" else variables


def automations() -> list[AutomationCore]:
    """Those of the file."""
    described = yaml.safe_load(AUTOMATIONS.read_text(encoding="utf-8"))["automations"]
    return [AutomationCore.model_validate(each) for each in described]


def _work_pool(client: SyncPrefectClient, name: str, kind: str) -> WorkPool:
    try:
        return client.read_work_pool(name)
    except ObjectNotFound:
        template = asyncio.run(get_default_base_job_template_for_infrastructure_type(kind))
        if template is None:
            raise WinnowError(
                f"Prefect knows no worker of type {kind!r} here: install its package, or use process"
            ) from None
        return client.create_work_pool(WorkPoolCreate(name=name, type=kind, base_job_template=template))


def _replace(client: SyncPrefectClient, automation: AutomationCore) -> None:
    """Create the automation, or update the one of its name, which keeps whether a person switched it off."""
    existing = client.read_automations_by_name(automation.name)
    if not existing:
        client.create_automation(automation)
        return
    client.update_automation(existing[0].id, automation.model_copy(update={"enabled": existing[0].enabled}))
    for other in existing[1:]:
        client.delete_automation(other.id)
