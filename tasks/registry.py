"""MLflow: runs, versions, tags and aliases. The only module that imports mlflow. No pickle is written or read.

What is live is the release log's to say (`tasks/releases.py`); the aliases here mirror it.
"""

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import distributions
from importlib.metadata import version as installed
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from models.spec import Parity, Trained
from tasks.settings import settings

ALIASES = ("champion", "challenger", "previous")


class RegistryError(RuntimeError):
    """MLflow cannot be reached, or what it holds is not what was registered."""


class Lineage(BaseModel):
    """Where a version comes from: everything needed to train it again."""

    model_config = ConfigDict(frozen=True)

    key: str = Field(description="Digest of all inputs of the training: same key, same version.")
    table: str
    table_version: int
    start: int = Field(description="Oldest event learnt from, ms since 1970 UTC.")
    holdout: int = Field(description="Training ends before this, ms since 1970 UTC.")
    watermark: int = Field(description="End of the hold-out, ms since 1970 UTC.")
    digest: str = Field(description="SHA-256 of the rows up to the watermark, those of the hold-out too.")
    parent: int | None = Field(None, description="Version whose weights it started from.")


class Version(BaseModel):
    """A registered model version. Numbers are the registry's, and Triton's."""

    model_config = ConfigDict(frozen=True)

    model: str
    number: int
    run_id: str
    digests: dict[str, str] = Field(description="SHA-256 of the ONNX file and of each file beside it, by name.")
    lineage: Lineage
    parity: Parity | None = None
    decision: str | None = Field(None, description="JSON of the gate's decision.")
    closed: bool = Field(False, description="Judged, and live if promoted: nothing is left to do with it.")


def find(model: str, key: str) -> Version | None:
    """The version that was trained from exactly the inputs behind `key`."""
    return next((v for v in versions(model) if v.lineage.key == key), None)


def versions(model: str) -> list[Version]:
    """All registered versions of a model, newest first."""
    return sorted((_version(v) for v in _stored(f"name='{model}'")), key=lambda v: -v.number)


def _stored(which: str, page: str | None = None) -> list:
    """MLflow's model versions; not those that someone registered by hand: these are not ours to judge or to serve."""
    answer = _client().search_model_versions(which, max_results=1000, page_token=page)
    found = [version for version in answer if "lineage" in version.tags]
    return found + _stored(which, answer.token) if answer.token else found


def lineages() -> list[Lineage]:
    """Where all registered versions of all models come from, also of model types that this checkout does not have."""
    return [Lineage.model_validate_json(v.tags["lineage"]) for v in _stored("")]


def get(model: str, number: int) -> Version:
    """One version. Raises RegistryError when there is none."""
    from mlflow.exceptions import MlflowException

    client = _client()
    try:
        found = client.get_model_version(model, str(number))
    except MlflowException as error:
        where = f"MLflow at {settings().mlflow_url}"
        raise RegistryError(f"{where} has no {model} version {number} to give: {error.message}") from error
    if "lineage" not in found.tags:
        raise RegistryError(f"{model} version {number} was not registered by Kreislauf: it has no lineage.")
    return _version(found)


def register(model: str, trained: Trained, params: BaseModel, lineage: Lineage, files: Mapping[str, Path]) -> Version:
    """Log a training as a run, its ONNX file as the model, and make it a version with alias `challenger`.

    `files` are further artifacts by name. The version is visible only when all of it is stored.
    """
    import mlflow
    import mlflow.onnx

    digests = {"model.onnx": sha256(trained.onnx)} | {name: sha256(path) for name, path in files.items()}
    _close_left_behind(model, lineage.key)
    with _run(model, lineage) as run:
        mlflow.log_params(params.model_dump(mode="json"))
        _log_dataset(lineage)
        _log_curves(run.info.run_id, trained.curves)
        mlflow.log_metrics({"validation": trained.validation, **trained.metrics})
        mlflow.log_text("\n".join(sorted(f"{d.name}=={d.version}" for d in distributions())), "environment.txt")
        for name, path in files.items():
            mlflow.log_artifact(str(path), artifact_path=name)
        info = _log_onnx(trained.onnx)
    tags = {
        "digests": json.dumps(digests),
        "lineage": lineage.model_dump_json(),
        "parity": trained.parity.model_dump_json(),
    }
    client = _client()
    registered = client.create_model_version(
        model, info.model_uri, run_id=run.info.run_id, tags=tags, model_id=info.model_id
    )
    version = get(model, int(registered.version))
    onnx_file(version)
    call_challenger(version)
    return version


def call_challenger(version: Version) -> None:
    """Give the version the alias `challenger`."""
    _client().set_registered_model_alias(version.model, "challenger", str(version.number))


def onnx_file(version: Version) -> Path:
    """The contract of a version as a local file. Raises RegistryError when it is not what was registered."""
    return _fetched(version, "model.onnx", f"models:/{version.model}/{version.number}/model.onnx")


def artifact(version: Version, name: str) -> Path:
    """The file that was registered as `name` beside the version, as a local file, checked like the contract."""
    return _fetched(version, name, f"runs:/{version.run_id}/{name}")


def attach(version: Version, name: str, path: Path) -> None:
    """Add a file to the run of a version, in the folder `name`."""
    _client().log_artifact(version.run_id, str(path), artifact_path=name)


def record_decision(version: Version, decision: BaseModel) -> Version:
    """Store the gate's decision on the version."""
    client = _client()
    client.set_model_version_tag(version.model, str(version.number), "decision", decision.model_dump_json())
    outcome = decision.model_dump()["outcome"]
    client.set_model_version_tag(version.model, str(version.number), "outcome", outcome)
    return get(version.model, version.number)


def close(version: Version) -> None:
    """Mark that nothing is left to do with the version."""
    _client().set_model_version_tag(version.model, str(version.number), "closed", "true")


def mirror(model: str, champion: int, challenger: int | None, previous: int | None) -> None:
    """Make the aliases say what the release log says; idempotent, so that every run repairs it."""
    client = _client()
    there = client.get_registered_model(model).aliases
    for alias, number in zip(ALIASES, (champion, challenger, previous), strict=True):
        if number is None and alias in there:
            client.delete_registered_model_alias(model, alias)
        elif number is not None and there.get(alias) != str(number):
            client.set_registered_model_alias(model, alias, str(number))


def aliases(model: str) -> dict[str, int]:
    """Version numbers by alias."""
    return {alias: int(number) for alias, number in _client().get_registered_model(model).aliases.items()}


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def code_version() -> str:
    """The commit that this process runs from, or the installed version where there is no checkout."""
    if not shutil.which("git"):
        return installed("kreislauf")
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else installed("kreislauf")


def _fetched(version: Version, name: str, uri: str) -> Path:
    """The file `name` of a version, cached under its digest: found there, it is the right one, however it came."""
    import mlflow

    digest = version.digests[name]
    cache = settings().home / "cache"
    path = cache / digest / name
    if path.exists() and sha256(path) == digest:
        return path
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        _client()
        found = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=folder, tracking_uri=_uri()))
        found = found if found.is_file() else next(found.iterdir())
        if sha256(found) != digest:
            raise RegistryError(
                f"{version.model} version {version.number}: {name} has digest {sha256(found)[:12]}, registered was "
                f"{digest[:12]}. The stored file was changed or damaged and is not used: train another version."
            )
        path.parent.mkdir(exist_ok=True)
        os.replace(found, path)
    return path


def _version(entity) -> Version:
    tags = entity.tags
    return Version(
        model=entity.name,
        number=int(entity.version),
        run_id=entity.run_id,
        digests=json.loads(tags["digests"]),
        lineage=Lineage.model_validate_json(tags["lineage"]),
        parity=Parity.model_validate_json(tags["parity"]) if "parity" in tags else None,
        decision=tags.get("decision"),
        closed=tags.get("closed") == "true",
    )


@contextmanager
def _run(model: str, lineage: Lineage) -> Iterator:
    import mlflow

    client = _client()
    # Without a server MLflow would put artifacts into the working directory.
    local = str(settings().home / "mlflow" / "artifacts") if _uri().startswith("sqlite") else None
    _create_once(client.create_experiment, model, artifact_location=local)
    _create_once(client.create_registered_model, model)
    mlflow.set_experiment(model)
    with mlflow.start_run(tags={"key": lineage.key, "code": code_version()}) as run:
        yield run


def _create_once(create: Callable, name: str, **options) -> None:
    from mlflow.exceptions import MlflowException

    try:
        create(name, **options)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _log_dataset(lineage: Lineage) -> None:
    import mlflow
    from mlflow.data.delta_dataset_source import DeltaDatasetSource
    from mlflow.data.meta_dataset import MetaDataset

    source = DeltaDatasetSource(path=f"{settings().lake}/{lineage.table}", delta_table_version=lineage.table_version)
    # MLflow takes 36 characters; the whole digest is in the version's lineage.
    mlflow.log_input(MetaDataset(source, lineage.table, lineage.digest[:36]), context="training")  # type: ignore[abstract]


def _log_curves(run_id: str, curves: list[tuple[str, int, float]]) -> None:
    from mlflow.entities import Metric

    metrics = [Metric(name, value, timestamp=0, step=step) for name, step, value in curves]
    for start in range(0, len(metrics), 500):
        _client().log_batch(run_id, metrics=metrics[start : start + 500])


def _log_onnx(path: Path):
    import mlflow.onnx
    import onnx

    model = onnx.load(path)
    return mlflow.onnx.log_model(
        model,
        name="model",
        signature=_signature(model),
        save_as_external_data=False,
        # Without this MLflow spends seconds on guessing.
        pip_requirements=[f"{name}=={installed(name)}" for name in ("onnxruntime", "numpy")],
        onnx_execution_providers=["CPUExecutionProvider"],
    )


def _signature(model):
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema, TensorSpec
    from onnx.helper import tensor_dtype_to_np_dtype

    def schema(tensors) -> Schema:
        specs: list[ColSpec | TensorSpec] = []
        for tensor in tensors:
            kind = tensor.type.tensor_type
            shape = tuple(d.dim_value if d.HasField("dim_value") else -1 for d in kind.shape.dim)
            specs.append(TensorSpec(tensor_dtype_to_np_dtype(kind.elem_type), shape, tensor.name))
        return Schema(specs)

    return ModelSignature(inputs=schema(model.graph.input), outputs=schema(model.graph.output))


def _close_left_behind(model: str, key: str) -> None:
    """End the runs of earlier attempts at the same training that were killed."""
    client = _client()
    experiment = client.get_experiment_by_name(model)
    if experiment is None:
        return
    query = f"tags.key = '{key}' and attributes.status = 'RUNNING'"
    for run in client.search_runs([experiment.experiment_id], query):
        client.set_terminated(run.info.run_id, "KILLED")


def _client():
    import mlflow
    from mlflow import MlflowClient

    mlflow.set_tracking_uri(_uri())
    return MlflowClient(_uri())


def _uri() -> str:
    """Address of MLflow, known to answer: MLflow's own retries take minutes before they say that it does not."""
    uri = settings().mlflow_url
    if uri.startswith("sqlite:///"):
        Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    if uri.startswith("http"):
        try:
            urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=5).close()
        except (urllib.error.URLError, OSError) as error:
            raise RegistryError(
                f"MLflow at {uri} does not answer ({error}). Start it (`make up`), or set KREISLAUF_MLFLOW_URL."
            ) from error
    return uri
