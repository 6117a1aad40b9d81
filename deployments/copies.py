"""Deployments on the server that people made for a model, which has its own in prefect.yaml by now.

Earlier versions had a deployment of `monitor` and `retrain` for one model, to be copied for others.
"""

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.responses import DeploymentResponse

from deployments import deployer, personal_changes, triggers


def refuse(client: SyncPrefectClient) -> None:
    """Raise TriggerError if a deployment that prefect.yaml does not have starts by itself what one
    of prefect.yaml starts, for the same model."""
    specs = personal_changes.specs()
    owners = {
        (spec["entrypoint"], triggers.parameters(spec)["model"]): name
        for name, spec in specs.items()
        if spec["entrypoint"] in triggers.LOOP
    }
    for deployment in client.read_deployments():
        entrypoint = deployer.module(deployment.entrypoint or "")
        name = f"{entrypoint.rsplit('.')[-1]}/{deployment.name}"
        model = triggers.parameters({"parameters": deployment.parameters})["model"]
        owner = owners.get((entrypoint, model))
        if owner and name not in specs and acts(client, deployment):
            raise triggers.TriggerError(
                f"{name} on the server is not in prefect.yaml, and starts by itself for {model}. "
                f"So does {owner}, which is in prefect.yaml. Run `prefect deployment delete {name}`"
                ", or pause it. Then deploy again."
            )


def acts(client: SyncPrefectClient, deployment: DeploymentResponse) -> bool:
    """Whether a schedule or an event starts the deployment."""
    if deployment.paused:
        return False
    if any(schedule.active for schedule in deployment.schedules):
        return True
    automations = personal_changes.triggers_of(client, deployment.id)
    return any(automation.enabled for automation in automations)
