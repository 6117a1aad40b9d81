"""Which events and schedules start which deployment's flow, and whether that happens once.

A deployment of a model has to name that model in its triggers, too.
"""

from collections.abc import Iterator
from fnmatch import fnmatch
from itertools import combinations, product
from typing import Any, NamedTuple

from models.spec import DEFAULT

MONITOR = "flows.monitor.monitor"
RETRAIN = "flows.retrain.retrain"
LOOP = (MONITOR, RETRAIN)
"""Flows that start by themselves, for one model type."""


class TriggerError(ValueError):
    """An event or a schedule would start a flow twice."""


class Trigger(NamedTuple):
    """An event of a resource, of which either may be a pattern, and what it starts."""

    deployment: str
    entrypoint: str
    name: str
    resource: str
    event: str


def overlap(first: Trigger, second: Trigger) -> bool:
    """Whether an event may start the same flow in two deployments."""
    return (
        first.deployment != second.deployment
        and (first.entrypoint, first.event) == (second.entrypoint, second.event)
        and (fnmatch(first.resource, second.resource) or fnmatch(second.resource, first.resource))
    )


def triggers(specs: list[dict]) -> Iterator[Trigger]:
    """The triggers of deployments as prefect.yaml has them, one for each resource and event."""
    for spec in specs:
        for trigger in spec.get("triggers", []):
            resources = trigger.get("match", {}).get("prefect.resource.id", "*")
            if isinstance(resources, str):
                resources = [resources]
            for resource, event in product(resources, trigger.get("expect", [])):
                yield Trigger(spec["name"], spec["entrypoint"], trigger["name"], resource, event)


def refuse_to_start_twice(specs: list[dict]) -> None:
    """Raise TriggerError if one event starts the same flow in two deployments, or if two schedules
    watch or retrain the same model with the same parameters."""
    for first, second in combinations(triggers(specs), 2):
        if overlap(first, second):
            raise TriggerError(
                f"An event {first.event} would start {first.entrypoint} twice: by the trigger "
                f"{first.name} of {first.deployment}, for {first.resource}, and by {second.name} "
                f"of {second.deployment}, for {second.resource}. Let each name its own model in "
                "prefect.yaml, as in `match: {prefect.resource.id: kreislauf.model.your_model}`. "
                "If both are for the same model, take one of the two out."
            )
    scheduled = [spec for spec in specs if spec.get("schedules") and spec["entrypoint"] in LOOP]
    for spec, later in combinations(scheduled, 2):
        if spec["entrypoint"] == later["entrypoint"] and parameters(spec) == parameters(later):
            raise TriggerError(
                f"The schedules of {spec['name']} and {later['name']} would both start "
                f"{spec['entrypoint']} for {parameters(spec)['model']}, with the same parameters. "
                "Take one of the two out of prefect.yaml."
            )


def parameters(spec: dict) -> dict[str, Any]:
    """Parameters of a deployment of `LOOP`, with its model."""
    return {"model": DEFAULT, **(spec.get("parameters") or {})}


def unheard_monitors(specs: list[dict]) -> list[str]:
    """A sentence for each model that is watched, and that no event retrains."""
    retrained = [t.resource for t in triggers(specs) if t.entrypoint == RETRAIN]
    watched = [parameters(spec)["model"] for spec in specs if spec["entrypoint"] == MONITOR]
    return [
        f"The monitor's events of {model} start no retraining: give retrain a deployment whose "
        f"trigger names kreislauf.model.{model}."
        for model in watched
        if not any(fnmatch(f"kreislauf.model.{model}", resource) for resource in retrained)
    ]
