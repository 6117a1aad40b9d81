"""How a training becomes a version: a run, its files, the ONNX file as the model. No pickle is
written."""

import json
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel

from kreislauf.registry import artifacts, claims, marks, runs
from kreislauf.registry.claims import Claim
from kreislauf.registry.versions import Version, get
from models.spec import TrainingResult


def register(
    claim: Claim, trained: TrainingResult, params: BaseModel, files: Mapping[str, Path]
) -> Version:
    """Log a training with its run, its ONNX file as the model, and make it a version with alias
    `challenger`.

    `files` are further artifacts by name. A parent is named only if the training has used its
    weights. The version is visible only when all of it is stored.
    Raises LostTraining, with no version made, if another process holds the training.
    """
    import mlflow

    digests = {"model.onnx": artifacts.sha256(trained.onnx)}
    for name, path in files.items():
        digests[name] = artifacts.sha256(path)
    model = claim.model
    lineage = claim.lineage
    if not trained.is_warm:
        lineage = lineage.model_copy(update={"parent": None})
    with runs.run(model, run_id=claim.run_id):
        mlflow.log_params(params.model_dump(mode="json"))
        runs.log_dataset(claim.lineage)
        runs.log_curves(claim.run_id, trained.curves)
        mlflow.log_metrics({"validation": trained.validation, **trained.metrics})
        runs.log_environment()
        for name, path in files.items():
            mlflow.log_artifact(str(path), artifact_path=name)
        info = runs.log_onnx(trained.onnx)
    tags = {
        "digests": json.dumps(digests),
        "lineage": lineage.model_dump_json(),
        "parity": trained.parity.model_dump_json(),
    }
    client = runs.client()
    runs.create_once(client.create_registered_model, model)
    claims.check(claim)
    registered = client.create_model_version(
        model, info.model_uri, run_id=claim.run_id, tags=tags, model_id=info.model_id
    )
    version = get(model, int(registered.version))
    artifacts.onnx_file(version)
    marks.call_challenger(version)
    return version


def delete(version: Version) -> None:
    """Delete a version, and the files of its run, for good."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    client = runs.client()
    stored = client.get_model_version(version.model, str(version.number))
    # MLflow keeps the ONNX file beside the run, as a logged model.
    logged_model = stored.source.removeprefix("models:/")
    places = [
        client.get_run(version.run_id).info.artifact_uri,
        client.get_logged_model(logged_model).artifact_location,
    ]
    # Files first: a run that is killed here leaves none that nothing names. Then the version: what
    # is still there is deleted again by the next run, and what follows it holds no file.
    for place in places:
        get_artifact_repository(place, tracking_uri=runs.uri()).delete_artifacts()
    client.delete_model_version(version.model, str(version.number))
    client.delete_logged_model(logged_model)
    client.delete_run(version.run_id)
