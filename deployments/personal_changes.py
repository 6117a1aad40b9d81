"""What people changed on the Prefect server since the last deploy, so that the next one keeps it.

A deploy notes a digest of what it has put in place, in the Prefect variable `VARIABLE`. What
differs from that before the next deploy was changed by a person, in the UI or by a command.
"""

import hashlib
import json
from contextlib import suppress
from typing import Any
from uuid import UUID

import httpx
import yaml
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.responses import DeploymentResponse
from prefect.events.schemas.automations import Automation
from prefect.exceptions import ObjectNotFound, PrefectException
from prefect.variables import Variable

from deployments.environment import ROOT

VARIABLE = "kreislauf_deployed"
UNDER_WAY = "kreislauf_changes"
"""Variable with the changes that a deploy which is under way has to keep."""
SCHEDULE = {"schedule", "active", "parameters", "slug", "max_scheduled_runs"}
PLAIN: dict[str, Any] = {"paused": False, "parameters": {}, "schedules": []}
"""Values that need no digest, so that a variable has room for all deployments."""

Changes = dict[tuple[str, str], Any]
"""Values by deployment and field: paused, parameters, schedules, or the name of a trigger, with
whether it acts. All else of a deployment is as prefect.yaml says."""


def specs() -> dict[str, dict]:
    """The deployments of prefect.yaml, by the name that Prefect calls one by: flow/deployment."""
    listed = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    return {f"{spec['entrypoint'].rsplit('.')[-1]}/{spec['name']}": spec for spec in listed}


def deployments(client: SyncPrefectClient) -> dict[str, DeploymentResponse]:
    """What the server has of the deployments of prefect.yaml, by flow/deployment."""
    present = {}
    for name in specs():
        with suppress(ObjectNotFound):
            present[name] = client.read_deployment_by_name(name)
    return present


def values(client: SyncPrefectClient) -> Changes:
    """What the server has for the deployments of prefect.yaml."""
    present: Changes = {}
    by_name = specs()
    for full_name, deployment in deployments(client).items():
        name = deployment.name
        schedules = [s.model_dump(mode="json", include=SCHEDULE) for s in deployment.schedules]
        present[name, "paused"] = deployment.paused
        present[name, "parameters"] = deployment.parameters
        present[name, "schedules"] = sorted(schedules, key=json.dumps)
        automations = {a.name: a.enabled for a in triggers_of(client, deployment.id)}
        for trigger in by_name[full_name].get("triggers", []):
            present[name, trigger["name"]] = automations.get(trigger["name"])
    return present


def triggers_of(client: SyncPrefectClient, deployment: UUID) -> list[Automation]:
    """The automations of a deployment: another one may have some of the same names."""
    return client.read_resource_related_automations(f"prefect.deployment.{deployment}")


def changes(client: SyncPrefectClient) -> Changes:
    """The values that are not those of the last deploy, and those that a deploy which did not come
    to its end had to keep, each for the deployment of its model. Empty before the first one."""
    under_way: list[list[Any]] = Variable.get(UNDER_WAY, default=[])
    left = {(name, field): value for name, field, value in under_way}
    changed = differences(values(client), Variable.get(VARIABLE, default={}))
    return of_models(left | changed, list(specs().values()))


def of_models(changes: Changes, specs: list[dict]) -> Changes:
    """The changes, where those of a deployment that was given another model are those of that
    model's own deployment. Earlier versions had one deployment of a flow, for any model."""
    by_name = {spec["name"]: spec for spec in specs}
    owners = {(spec["entrypoint"], model_of(spec)): spec["name"] for spec in specs}

    def owner(name: str) -> str:
        spec = by_name.get(name, {})
        model = changes.get((name, "parameters"), {}).get("model")
        if model is None or model_of(spec) is None:
            return name
        return owners.get((spec["entrypoint"], model), name)

    return {(owner(name), field): value for (name, field), value in changes.items()}


def model_of(spec: dict) -> str | None:
    """The model type that a deployment is of; None for one that is of all."""
    return spec.get("parameters", {}).get("model")


def remember(changes: Changes) -> None:
    """Write down what a deploy has to keep, before it overwrites anything."""
    under_way = [[name, field, value] for (name, field), value in changes.items()]
    Variable.set(UNDER_WAY, under_way, overwrite=True)


def differences(present: Changes, deployed: dict[str, dict[str, str]]) -> Changes:
    """The `present` values whose digest is not the `deployed` one; not those that were not deployed
    yet."""
    return {
        (name, field): value
        for (name, field), value in present.items()
        if name in deployed
        and deployed[name].get(field, digest(PLAIN.get(field, value))) != digest(value)
    }


def note(deployed: Changes) -> None:
    """Remember what a deploy has put in place. It has come to its end."""
    Variable.set(VARIABLE, digests(deployed), overwrite=True)
    Variable.set(UNDER_WAY, [], overwrite=True)


def digests(deployed: Changes) -> dict[str, dict[str, str]]:
    """The digest of each value that is not `PLAIN`, by deployment and field."""
    by_deployment: dict[str, dict[str, str]] = {name: {} for name, _ in deployed}
    for (name, field), value in deployed.items():
        if field not in PLAIN or value != PLAIN[field]:
            by_deployment[name][field] = digest(value)
    return by_deployment


def digest(value: Any) -> str:
    """Short enough for a variable that holds all of them."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:8]


def keep(client: SyncPrefectClient, kept: Changes, deployed: Changes) -> list[str]:
    """Put the values back that people chose, where they are not the `deployed` ones. Returns a
    sentence for each."""
    sentences = []
    for (name, field), value in kept.items():
        if deployed.get((name, field), value) == value:
            continue
        try:
            put_back(client, name, field, value)
        except (httpx.HTTPError, PrefectException) as error:
            sentences.append(f"{name}: {field} cannot be {json.dumps(value)} any more. {error}")
            continue
        sentences.append(
            f"{name}: {field} is still {json.dumps(value)}, as a person set it; prefect.yaml has "
            f"{json.dumps(deployed[name, field])}, which RESET=1 puts in place."
        )
    return sentences


def put_back(client: SyncPrefectClient, name: str, field: str, value: Any) -> None:
    """Give a deployment a field's value."""
    (full_name,) = [full for full, spec in specs().items() if spec["name"] == name]
    deployment = client.read_deployment_by_name(full_name)
    if field == "schedules":
        for schedule in deployment.schedules:
            client.delete_deployment_schedule(deployment.id, schedule.id)
        if value:
            schedules = [DeploymentScheduleCreate.model_validate(each) for each in value]
            client.create_deployment_schedules(deployment.id, schedules)
    elif field in ("paused", "parameters"):
        client.request(
            "PATCH",
            "/deployments/{id}",
            path_params={"id": deployment.id},
            json={field: value},
        )
    else:
        set_trigger(client, deployment.id, field, value)


def set_trigger(
    client: SyncPrefectClient, deployment: UUID, trigger: str, acts: bool | None
) -> None:
    """Switch a trigger's automation on or off, or delete it for None."""
    for automation in triggers_of(client, deployment):
        if automation.name != trigger:
            continue
        if acts is None:
            client.delete_automation(automation.id)
        elif acts:
            client.resume_automation(automation.id)
        else:
            client.pause_automation(automation.id)
