"""How a training becomes a version: a run, its files, the ONNX file as the model. No pickle is
written."""

import json
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel

from kreislauf.registry import artifacts, marks, runs
from kreislauf.registry.runs import Lineage
from kreislauf.registry.versions import Version, get
from models.spec import TrainingResult


def register(
    model: str,
    trained: TrainingResult,
    params: BaseModel,
    lineage: Lineage,
    files: Mapping[str, Path],
) -> Version:
    """Log a training as a run, its ONNX file as the model, and make it a version with alias
    `challenger`.

    `files` are further artifacts by name. The version is visible only when all of it is stored.
    """
    import mlflow

    digests = {"model.onnx": artifacts.sha256(trained.onnx)}
    for name, path in files.items():
        digests[name] = artifacts.sha256(path)
    runs.close_orphans(model, lineage.key)
    with runs.run(model, key=lineage.key) as run:
        mlflow.log_params(params.model_dump(mode="json"))
        runs.log_dataset(lineage)
        runs.log_curves(run.info.run_id, trained.curves)
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
    registered = client.create_model_version(
        model, info.model_uri, run_id=run.info.run_id, tags=tags, model_id=info.model_id
    )
    version = get(model, int(registered.version))
    artifacts.onnx_file(version)
    marks.call_challenger(version)
    return version
