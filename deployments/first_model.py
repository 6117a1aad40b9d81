"""From a shop's files to a first model that is watched: `make up DATA=... MAPPING=...`.

Prefect is imported late, because it reads its address when it is imported.
"""

import os
import sys
from typing import Any

import polars as pl

from kreislauf import sources
from kreislauf.settings import place
from models import mapping as mappings
from models.spec import ModelSpec

SMALL = 10_000
"""Groups, such as sessions, below which a shop is small: its first model is made with the preset
for such."""


class NoFirstModel(RuntimeError):
    """There is no first model; the message says why, and what to do."""


def check(data: str | None, mapping: str | None) -> None:
    """End the program with a sentence if there is nothing to load, or no way to read it."""
    if mapping and not data:
        sys.exit("MAPPING says how DATA is read: give DATA, too.")
    if not data:
        return
    try:
        _, reading = mappings.find(mapping, None)
        sources.find(data, reading)
    except (ValueError, sources.SourceError) as error:
        sys.exit(str(error))


def make(environment: dict[str, str], data: str, mapping: str | None) -> None:
    """Load `data`, train a model, put it live and look at it; each by the model's own deployment,
    which goes on by itself, on the stack that the `environment` leads to.

    Prints what came of it. Ends the program with a sentence if there is no first model.
    """
    os.environ.update(environment)
    from kreislauf import lake
    from kreislauf.monitoring import status
    from kreislauf.release import releases

    model_type, _ = mappings.find(mapping, None)
    model = model_type.name
    try:
        retrain = deployment_of("retrain", model)
        monitor = deployment_of("monitor", model)
        print(f"ingest: {data} into the table {model_type.table.name}", flush=True)
        run("ingest/ingest", source=place(data), mapping=mapping and place(mapping))
        counts = lake.total(lake.history(model_type.table))
        print(
            f"{counts.rows_kept} events are in the lake; {counts.lines_rejected} of "
            f"{counts.lines_in} lines were rejected. Training the first model.",
            flush=True,
        )
        run(retrain, model=model, reason="the first model", params=params(model_type))
        live = releases.current(model)
        if live is None:
            raise NoFirstModel(f"Nothing of {model} is live. {refusal(model)}")
        print(f"version {live.champion} of {model} is live: {live.reason}", flush=True)
        run(monitor, model=model)
    except (NoFirstModel, lake.LakeError) as error:
        sys.exit(str(error))
    newest = status.read(model)
    print(f"monitor: {newest.verdict if newest else 'there is nothing to look at yet'}", flush=True)


def deployment_of(flow: str, model: str) -> str:
    """Name of the deployment of a flow that is the model's own. Raises NoFirstModel without one."""
    from deployments import personal_changes

    for name, spec in personal_changes.specs().items():
        if name.startswith(f"{flow}/") and personal_changes.model_of(spec) == model:
            return name
    raise NoFirstModel(
        f"prefect.yaml has no deployment of {flow} for {model}, so nobody would keep the model "
        "fresh. Give it one, as docs/operation.md says under Several models, and run `make deploy`."
    )


def run(deployment: str, **parameters: Any) -> None:
    """Run a deployment to its end. Raises NoFirstModel if it does not complete."""
    from prefect.client.schemas.objects import FlowRun
    from prefect.deployments import run_deployment

    finished = run_deployment(deployment, parameters=parameters, as_subflow=False, poll_interval=1)
    assert isinstance(finished, FlowRun)
    if finished.state is None or not finished.state.is_completed():
        message = finished.state and finished.state.message
        raise NoFirstModel(
            f"The run {finished.name} of {deployment} did not complete: "
            f"{message or 'its log in the Prefect UI says more.'}"
        )


def params(model_type: ModelSpec) -> dict[str, Any] | None:
    """Parameters of the first training; None: the defaults."""
    from kreislauf import lake

    table = model_type.table
    rows = lake.scan(table)
    groups = rows.select(pl.col(table.group).n_unique()).collect(engine="streaming").item()
    if groups >= SMALL:
        return None
    print(f"{groups} {table.group} values: the parameters for small shops.", flush=True)
    return model_type.Params.small().model_dump()  # type: ignore[attr-defined]


def refusal(model: str) -> str:
    """Why the newest version is not live, or why there is none."""
    from kreislauf import registry
    from kreislauf.evaluation.gate import Decision
    from kreislauf.training import inputs
    from models import spec

    versions = registry.versions(model)
    if not versions:
        shortage = inputs.shortage(spec.load(model))
        if shortage:
            return shortage
    if not versions or not versions[0].decision:
        return "Nothing was trained: the run's log in the Prefect UI says why."
    decision = Decision.model_validate_json(versions[0].decision)
    return f"Version {versions[0].number}, {decision.outcome}: {' '.join(decision.reasons)}"
