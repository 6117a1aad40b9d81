"""Files of a version: the ONNX file and those beside it, each checked by its digest. No pickle is
read."""

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from kreislauf import full_disk
from kreislauf.registry import runs
from kreislauf.registry.runs import RegistryError
from kreislauf.registry.versions import Version
from kreislauf.settings import settings

FORMER_NAMES = {"training_profile": "known"}
"""Names that files beside a version had when earlier versions were registered, by today's name."""
CARD = "card.html"
"""Name of the file with the card, in the folder `card` of a version's run."""


def onnx_file(version: Version) -> Path:
    """The contract of a version as a local file. Raises RegistryError when it is not what was
    registered."""
    return _fetched(version, "model.onnx", f"models:/{version.model}/{version.number}/model.onnx")


def artifact(version: Version, name: str) -> Path:
    """The file that was registered as `name` beside the version, as a local file, checked like the
    contract.

    Raises RegistryError if there is none of this name, or if it was changed.
    """
    stored = name
    if name not in version.digests and FORMER_NAMES.get(name) in version.digests:
        stored = FORMER_NAMES[name]
    return _fetched(version, stored, f"runs:/{version.run_id}/{stored}")


def curves(version: Version) -> list[tuple[str, int, float]]:
    """Name, step and value of what its training measured."""
    return runs.curves(version.run_id)


def attach(version: Version, name: str, path: Path) -> None:
    """Add a file to the run of a version, in the folder `name`."""
    runs.client().log_artifact(version.run_id, str(path), artifact_path=name)


def amend_card(version: Version, change: Callable[[str], str]) -> None:
    """Replace the card of a version, as HTML, by what `change` makes of it; of the empty text, if
    there is none."""
    with tempfile.TemporaryDirectory() as folder:
        before = ""
        if CARD in attached(version, "card"):
            stored = runs.client().download_artifacts(version.run_id, f"card/{CARD}", folder)
            # A person may have written another file there.
            before = Path(stored).read_text(encoding="utf-8", errors="replace")
        after = change(before)
        if after != before:
            path = Path(folder) / CARD
            path.write_text(after, encoding="utf-8")
            attach(version, "card", path)


def attached(version: Version, name: str) -> list[str]:
    """Names of the files in the folder `name` of the run of a version; none if somebody has deleted
    the run."""
    from mlflow.exceptions import MlflowException

    try:
        files = runs.client().list_artifacts(version.run_id, name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return []
    return [file.path.rsplit("/", 1)[1] for file in files]


def detach(version: Version, name: str, files: Iterable[str]) -> None:
    """Delete files from the folder `name` of the run of a version."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    run = runs.client().get_run(version.run_id)
    # MLflow's client has no method for it.
    repository = get_artifact_repository(run.info.artifact_uri, tracking_uri=runs.uri())
    for file in files:
        repository.delete_artifacts(f"{name}/{file}")


def put_in_cache(version: Version, name: str, content: bytes) -> None:
    """Let a file of a version be found in the cache, as if it came from MLflow; only if it is what
    was registered."""
    path = settings().home / "cache" / version.digests[name] / name
    if hashlib.sha256(content).hexdigest() == version.digests[name]:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f"{name}.{os.getpid()}")
        draft.write_bytes(content)
        draft.replace(path)


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
            f"{version.model} version {version.number} has no file {name}: it was registered by an "
            "earlier Kreislauf. Train another version."
        )
    cache = settings().home / "cache"
    path = cache / digest / name
    if path.exists() and sha256(path) == digest:
        return path
    cache.mkdir(parents=True, exist_ok=True)
    # Sets MLflow's addresses, which `models:/` is resolved by.
    runs.client()
    with (
        full_disk.named({cache: "KREISLAUF_HOME"}),
        tempfile.TemporaryDirectory(dir=cache) as folder,
    ):
        try:
            downloaded = Path(
                mlflow.artifacts.download_artifacts(
                    artifact_uri=uri, dst_path=folder, tracking_uri=runs.uri()
                )
            )
        except (mlflow.MlflowException, OSError) as error:
            raise RegistryError(
                f"MLflow does not give {name} of {version.model} version {version.number}: {error}"
            ) from error
        if downloaded.is_dir():
            downloaded = next(downloaded.iterdir())
        actual = sha256(downloaded)
        if actual != digest:
            raise RegistryError(
                f"{version.model} version {version.number}: {name} has digest {actual[:12]}, "
                f"registered was {digest[:12]}. The stored file was changed or damaged and is not "
                "used: train another version."
            )
        path.parent.mkdir(exist_ok=True)
        os.replace(downloaded, path)
    return path
