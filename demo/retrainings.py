"""Wait for what the worker does after an event."""

from datetime import datetime
from typing import Any

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentUpdate
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName
from prefect.client.schemas.objects import FlowRun

from demo.waiting import until
from kreislauf import registry
from kreislauf.evaluation import gate
from models import spec
from tasks.recover import successor_key

WHERE = " (look at the Prefect UI and the worker's log)"
REACTION_SECONDS = 120
"""Seconds within which a retraining has to start."""
RETRAINING_SECONDS = 1_200
"""Seconds within which a retraining has to end."""


def deployment_of(model: str) -> str:
    """Name of the model's own deployment of `retrain`, in prefect.yaml."""
    if model == spec.DEFAULT:
        return "retrain"
    return f"retrain-{model}"


def set_params(model: str, params: dict[str, Any]) -> None:
    """Give the model's deployment these training parameters, as a person would in Prefect's UI."""
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name(f"retrain/{deployment_of(model)}")
        parameters = deployment.parameters | {"params": params}
        client.update_deployment(deployment.id, DeploymentUpdate(parameters=parameters))


def wait(since: datetime, model: str) -> None:
    """Return when the model's retraining that was started after `since` is over.

    Raises TimeoutError if none starts or ends in time, and RuntimeError if it did not complete.
    """
    with get_client(sync_client=True) as client:
        until(
            lambda: bool(created(client, since, model)),
            REACTION_SECONDS,
            f"no retraining was started{WHERE}",
        )
        until(
            lambda: all(is_over(run) for run in created(client, since, model)),
            RETRAINING_SECONDS,
            f"the retraining did not end{WHERE}",
        )
        runs = created(client, since, model)
    failed = [run for run in runs if run.state and not run.state.is_completed()]
    if failed:
        raise RuntimeError(f"Retraining {failed[0].name} ended as {failed[0].state}")


def is_over(run: FlowRun) -> bool:
    """Whether a run has ended. A crashed one has not: the flow recover begins another for it."""
    return bool(run.state and run.state.is_final() and not run.state.is_crashed())


def created(client: SyncPrefectClient, since: datetime, model: str) -> list[FlowRun]:
    """Runs of the model's deployment created after `since`, but not by its schedule; not those that
    crashed and that another one has taken up."""
    name = DeploymentFilterName(any_=[deployment_of(model)])
    runs = client.read_flow_runs(deployment_filter=DeploymentFilter(name=name), limit=100)
    taken_up = {run.idempotency_key for run in runs}
    return [
        run
        for run in runs
        if not run.auto_scheduled
        and run.created
        and run.created >= since
        and successor_key(run) not in taken_up
    ]


def newest_outcome(model: str) -> str:
    """What the gate decided about the newest version."""
    return gate.Decision.model_validate_json(registry.versions(model)[0].decision or "").outcome
