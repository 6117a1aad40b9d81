"""Train a challenger: time split -> fit -> ONNX file with proven parity -> registered version."""

import hashlib
import json
from typing import Any

from prefect import flow, get_run_logger
from pydantic import BaseModel

from kreislauf import lake, registry
from kreislauf.evaluation import split
from kreislauf.lake import exclusions
from kreislauf.release import releases
from models import spec
from tasks.train import fit


@flow
def train(
    model: str = "session_recommender", params: dict[str, Any] | None = None
) -> registry.Version:
    """Train one challenger on everything before the hold-out, and register it.

    The same data, parameters, parent and code give the version that is there already: a rerun
    continues, it does not repeat.

    Args:
        model: Name of the model type, a folder in `models/`.
        params: Training parameters that differ from the defaults of the model type's `Params`.

    Returns:
        The registered version, alias `challenger`.

    Raises:
        ValueError: unknown model type, wrong parameters, too little data.
        lake.LakeError, registry.RegistryError: a store is missing or does not answer.
    """
    model_type = spec.load(model)
    settled = model_type.Params.model_validate(params or {})
    lineage = plan(model_type, settled)
    existing = registry.find(model, lineage.key)
    if existing:
        get_run_logger().info(f"Version {existing.number} was trained from exactly this before.")
        registry.call_challenger(existing)
        return existing
    smallest = split.detectable(lineage.groups, model_type.policy)
    get_run_logger().info(
        f"The hold-out of {lineage.groups} groups finds a gain of {smallest:.4f} {model_type.metric} in "
        f"{model_type.policy.power:.0%} of the cases, a smaller one less often."
    )
    return fit(model, settled.model_dump(mode="json"), lineage)


def plan(model_type: spec.ModelSpec, params: BaseModel) -> registry.Lineage:
    """What the next training learns from, and which version it starts from."""
    version = lake.version(model_type.table)
    without = exclusions.intervals(model_type.table.name)
    rows = lake.read(model_type.table, version, without=without)
    at = split.cut(rows, model_type.table, version, model_type.policy)
    live = releases.current(model_type.name)
    parent = live.champion if live else None
    # Weights that have seen the hold-out must not get into the challenger by the back door.
    if parent and registry.get(model_type.name, parent).lineage.holdout > at.holdout:
        parent = None
    digest = lake.digest(rows)
    inputs = [
        model_type.name,
        params.model_dump(mode="json"),
        at.holdout,
        digest,
        parent,
        spec.code_digest(model_type),
    ]
    key = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
    return registry.Lineage(
        key=key,
        table=model_type.table.name,
        parent=parent,
        digest=digest,
        without=without,
        **at.model_dump(),
    )
