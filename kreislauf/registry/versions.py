"""MLflow's registry: versions, their files, tags and aliases. No pickle is written or read.

What is live is the release log's to say (`kreislauf/release/releases.py`); the aliases here mirror
it. Only this folder imports mlflow.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from kreislauf.registry import runs
from kreislauf.registry.runs import Lineage, RegistryError
from kreislauf.settings import settings
from models.spec import MAX_BATCH, Parity, TrainingResult

ALIASES = ("champion", "challenger", "previous")


class Version(BaseModel):
    """A registered model version. Numbers are the registry's, and Triton's."""

    model_config = ConfigDict(frozen=True)

    model: str
    number: int
    run_id: str
    digests: dict[str, str] = Field(
        description="SHA-256 of the ONNX file and of each file beside it, by name."
    )
    lineage: Lineage
    parity: Parity | None = None
    decision: str | None = Field(None, description="JSON of the gate's decision.")
    closed: bool = Field(
        False, description="Judged, and live if promoted: nothing is left to do with it."
    )

    @property
    def proven(self) -> bool:
        """Whether the ONNX file answered as the module did, at every batch size that Triton may
        make."""
        return (
            self.parity is not None
            and self.parity.passed
            and self.parity.largest_batch >= MAX_BATCH
        )


def find(model: str, key: str) -> Version | None:
    """The version that was trained from exactly the inputs behind `key`."""
    return next((v for v in versions(model) if v.lineage.key == key), None)


def versions(model: str) -> list[Version]:
    """All registered versions of a model, newest first."""
    return sorted((_version(v) for v in _stored(f"name='{model}'")), key=lambda v: -v.number)


def finished(model: str) -> Version | None:
    """The newest version with which nothing is left to do, whether it went live or not."""
    return next((v for v in versions(model) if v.closed), None)


def _stored(which: str, page: str | None = None) -> list:
    """MLflow's model versions; not those that someone registered by hand: these are not ours to
    judge or to serve."""
    answer = runs.client().search_model_versions(which, max_results=1000, page_token=page)
    found = [version for version in answer if "lineage" in version.tags]
    return found + _stored(which, answer.token) if answer.token else found


def lineages() -> list[Lineage]:
    """Where all registered versions of all models come from, also of model types that this checkout
    does not have."""
    return [Lineage.model_validate_json(v.tags["lineage"]) for v in _stored("")]


def get(model: str, number: int) -> Version:
    """One version. Raises RegistryError when there is none."""
    from mlflow.exceptions import MlflowException

    client = runs.client()
    try:
        found = client.get_model_version(model, str(number))
    except MlflowException as error:
        where = f"MLflow at {settings().mlflow_url}"
        raise RegistryError(
            f"{where} has no {model} version {number} to give: {error.message}"
        ) from error
    if "lineage" not in found.tags:
        raise RegistryError(
            f"{model} version {number} was not registered by Kreislauf: it has no lineage."
        )
    return _version(found)


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

    digests = {"model.onnx": sha256(trained.onnx)} | {
        name: sha256(path) for name, path in files.items()
    }
    runs.close_left_behind(model, lineage.key)
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
    onnx_file(version)
    call_challenger(version)
    return version


def call_challenger(version: Version) -> None:
    """Give the version the alias `challenger`."""
    runs.client().set_registered_model_alias(version.model, "challenger", str(version.number))


def onnx_file(version: Version) -> Path:
    """The contract of a version as a local file. Raises RegistryError when it is not what was
    registered."""
    return _fetched(version, "model.onnx", f"models:/{version.model}/{version.number}/model.onnx")


def artifact(version: Version, name: str) -> Path:
    """The file that was registered as `name` beside the version, as a local file, checked like the
    contract.

    Raises RegistryError if there is none of this name, or if it was changed.
    """
    return _fetched(version, name, f"runs:/{version.run_id}/{name}")


def curves(version: Version) -> list[tuple[str, int, float]]:
    """Name, step and value of what its training told."""
    return runs.curves(version.run_id)


def attach(version: Version, name: str, path: Path) -> None:
    """Add a file to the run of a version, in the folder `name`."""
    runs.client().log_artifact(version.run_id, str(path), artifact_path=name)


def record_decision(version: Version, decision: BaseModel) -> Version:
    """Store the gate's decision on the version."""
    client = runs.client()
    client.set_model_version_tag(
        version.model, str(version.number), "decision", decision.model_dump_json()
    )
    outcome = decision.model_dump()["outcome"]
    client.set_model_version_tag(version.model, str(version.number), "outcome", outcome)
    return get(version.model, version.number)


def close(version: Version) -> None:
    """Mark that nothing is left to do with the version."""
    runs.client().set_model_version_tag(version.model, str(version.number), "closed", "true")


def mirror(model: str, champion: int, challenger: int | None, previous: int | None) -> None:
    """Make the aliases say what the release log says; idempotent, so that every run repairs it."""
    client = runs.client()
    there = client.get_registered_model(model).aliases
    for alias, number in zip(ALIASES, (champion, challenger, previous), strict=True):
        if number is None and alias in there:
            client.delete_registered_model_alias(model, alias)
        elif number is not None and there.get(alias) != str(number):
            client.set_registered_model_alias(model, alias, str(number))


def aliases(model: str) -> dict[str, int]:
    """Version numbers by alias."""
    return {
        alias: int(number)
        for alias, number in runs.client().get_registered_model(model).aliases.items()
    }


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _fetched(version: Version, name: str, uri: str) -> Path:
    """The file `name` of a version, cached under its digest: found there, it is the right one,
    however it came."""
    import mlflow

    digest = version.digests.get(name)
    if digest is None:
        raise RegistryError(
            f"{version.model} version {version.number} has no file {name}: it was registered by an earlier Kreislauf. "
            "Train another version."
        )
    cache = settings().home / "cache"
    path = cache / digest / name
    if path.exists() and sha256(path) == digest:
        return path
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        runs.client()
        found = Path(
            mlflow.artifacts.download_artifacts(
                artifact_uri=uri, dst_path=folder, tracking_uri=runs.uri()
            )
        )
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
