"""Train a challenger: time split -> fit -> ONNX file with proven parity -> registered version."""

from typing import Any

from prefect import flow, get_run_logger

from kreislauf import registry
from kreislauf.evaluation import split
from kreislauf.training import inputs
from models import spec
from tasks.train import fit, plan


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
    hyperparameters = model_type.Params.model_validate(params or {})
    data = inputs.read_newest(model_type)
    if data.newest.ahead:
        get_run_logger().warning(str(data.newest))
    lineage = plan(model_type, hyperparameters, data)
    existing = registry.find(model, lineage.key)
    if existing:
        get_run_logger().info(f"Version {existing.number} was trained from exactly this before.")
        registry.call_challenger(existing)
        return existing
    smallest = split.detectable(lineage.groups, model_type.policy)
    get_run_logger().info(
        f"The hold-out of {lineage.groups} groups finds a gain of {smallest:.4f} "
        f"{model_type.metric} in {model_type.policy.power:.0%} of the cases, a smaller one less "
        "often."
    )
    return fit(model, hyperparameters.model_dump(mode="json"), lineage)
