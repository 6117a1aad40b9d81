"""Train a challenger: time split -> fit -> ONNX file with proven parity -> registered version."""

from typing import Any

from prefect import flow, get_run_logger

from kreislauf import registry
from kreislauf.evaluation import split
from kreislauf.registry import claims
from kreislauf.training import inputs
from models import spec
from tasks.page import draw_page
from tasks.train import clicked_share, fit, plan, unfinished_plan


@flow
def train(
    model: str = "session_recommender", params: dict[str, Any] | None = None
) -> registry.Version:
    """Train one challenger on everything before the hold-out, and register it.

    The same data, parameters, parent and code give the version that is there already: a rerun
    continues, it does not repeat. A training that was killed is continued on its own rows, though
    others have arrived, unless they are of more than three days.

    Args:
        model: Name of the model type, a folder in `models/`.
        params: Training parameters that differ from the defaults of the model type's `Params`.

    Returns:
        The registered version, alias `challenger`.

    Raises:
        ValueError: unknown model type, wrong parameters, too little data.
        lake.LakeError, registry.RegistryError: a store is missing or does not answer.
        claims.LostTraining: another run has taken this training over.
    """
    model_type = spec.load(model)
    hyperparameters = model_type.Params.model_validate(params or {})
    lineage = unfinished_plan(model_type, hyperparameters)
    if lineage is None:
        data = inputs.read_newest(model_type)
        if data.newest.ahead:
            get_run_logger().warning(str(data.newest))
        elif data.newest.agreed is not None:
            get_run_logger().info(str(data.newest))
        lineage = plan(model_type, hyperparameters, data)
    existing = registry.find(model, lineage.key)
    if existing:
        get_run_logger().info(f"Version {existing.number} was trained from exactly this before.")
        registry.call_challenger(existing)
        claims.end(model, lineage.key, "done")
        return existing
    smallest = split.detectable(lineage.groups, model_type.policy)
    get_run_logger().info(
        f"The hold-out of {lineage.groups} groups finds a gain of {smallest:.4f} "
        f"{model_type.metric} in {model_type.policy.power:.0%} of the cases, a smaller one less "
        "often."
    )
    lineage = lineage.model_copy(update={"clicked": clicked_share(model_type, lineage)})
    if lineage.clicks:
        get_run_logger().info(lineage.clicks)
    draw_page(model)
    return fit(model, hyperparameters.model_dump(mode="json"), lineage)
