"""Runs that the end of `winnow serve` interrupted are scheduled again, and the next `winnow serve` resumes them."""

from collections.abc import Sequence
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.states import AwaitingRetry

_UNFINISHED = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]

MESSAGE = "winnow serve ended during this run: the next one resumes it"


def schedule_again(deployments: Sequence[UUID]) -> int:
    """Schedule the unfinished runs of these deployments for now. Returns how many. Call it while none of them works."""
    unfinished = FlowRunFilter(
        deployment_id=FlowRunFilterDeploymentId(any_=list(deployments)),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=_UNFINISHED)),
    )
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(flow_run_filter=unfinished)
        for run in runs:
            client.set_flow_run_state(run.id, AwaitingRetry(message=MESSAGE), force=True)
    return len(runs)
