"""What people changed on the Prefect server since the last deploy, so that the next one keeps it.

A deploy notes a digest of what it has put in place, in the Prefect variable `VARIABLE`. What
differs from that before the next deploy was changed by a person, in the UI or by a command.
"""

import hashlib
import json
from typing import Any

import httpx
import yaml
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.exceptions import ObjectNotFound, PrefectException
from prefect.variables import Variable

from deployments.stack import ROOT

VARIABLE = "kreislauf_deployed"
UNDER_WAY = "kreislauf_changes"
"""Variable with the changes that a deploy which is under way has to keep."""
SCHEDULE = {"schedule", "active", "parameters", "slug", "max_scheduled_runs"}

Changes = dict[tuple[str, str], Any]
"""Values by deployment and field: paused, parameters, schedules, or the name of a trigger, with
whether it acts. All else of a deployment is as prefect.yaml says."""


def values(client: SyncPrefectClient) -> Changes:
    """What the server has for the deployments of prefect.yaml."""
    present: Changes = {}
    for spec in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]:
        name = spec["name"]
        try:
            deployment = client.read_deployment_by_name(f"{name}/{name}")
        except ObjectNotFound:
            continue
        schedules = [s.model_dump(mode="json", include=SCHEDULE) for s in deployment.schedules]
        present[name, "paused"] = deployment.paused
        present[name, "parameters"] = deployment.parameters
        present[name, "schedules"] = sorted(schedules, key=json.dumps)
        for trigger in spec.get("triggers", []):
            present[name, trigger["name"]] = enabled(client, trigger["name"])
    return present


def enabled(client: SyncPrefectClient, trigger: str) -> bool | None:
    """Whether a trigger's automation acts; None if there is none."""
    automations = client.read_automations_by_name(trigger)
    if not automations:
        return None
    return automations[0].enabled


def changes(client: SyncPrefectClient) -> Changes:
    """The values that are not those of the last deploy, and those that a deploy which did not come
    to its end had to keep. Empty before the first one."""
    under_way: list[list[Any]] = Variable.get(UNDER_WAY, default=[])
    left = {(name, field): value for name, field, value in under_way}
    return left | differences(values(client), Variable.get(VARIABLE, default={}))


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
        if deployed.get(name, {}).get(field, digest(value)) != digest(value)
    }


def note(deployed: Changes) -> None:
    """Remember what a deploy has put in place. It has come to its end."""
    Variable.set(VARIABLE, digests(deployed), overwrite=True)
    Variable.set(UNDER_WAY, [], overwrite=True)


def digests(deployed: Changes) -> dict[str, dict[str, str]]:
    """The digest of each value, by deployment and field."""
    by_deployment: dict[str, dict[str, str]] = {}
    for (name, field), value in deployed.items():
        by_deployment.setdefault(name, {})[field] = digest(value)
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
    deployment = client.read_deployment_by_name(f"{name}/{name}")
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
        set_trigger(client, field, value)


def set_trigger(client: SyncPrefectClient, trigger: str, acts: bool | None) -> None:
    """Switch a trigger's automation on or off, or delete it for None."""
    for automation in client.read_automations_by_name(trigger):
        if acts is None:
            client.delete_automation(automation.id)
        elif acts:
            client.resume_automation(automation.id)
        else:
            client.pause_automation(automation.id)
