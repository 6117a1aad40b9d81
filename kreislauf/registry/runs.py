"""MLflow itself, and a training as one of its runs: parameters, curves, data, packages, ONNX."""

import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import distributions
from importlib.metadata import version as installed
from pathlib import Path

from kreislauf.registry.lineage import Lineage
from kreislauf.settings import settings

PROBE = "/api/2.0/mlflow/experiments/get-by-name?experiment_name=Default"
"""What every MLflow answers in some way, also behind a login or below a path."""
PROBE_SECONDS = 5
LOGIN = (401, 403)
"""HTTP status of an answer to who has no login, or another one's."""


class RegistryError(RuntimeError):
    """MLflow cannot be reached, or what it holds is not what was registered."""


class NoSuchVersion(RegistryError):
    """MLflow has no version of this number that Kreislauf registered."""


def client():
    """A client of the MLflow at `uri()`, which answers; MLflow's module functions use the same.

    It is asked once, as MLflow's own client asks, whose retries take minutes before they say that
    it does not answer. Raises RegistryError.
    """
    import mlflow
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    address = uri()
    mlflow.set_tracking_uri(address)
    if not address.startswith("http"):
        return MlflowClient(address)
    once = {"max_retries": 0, "timeout": PROBE_SECONDS, "raise_on_status": False}
    try:
        answer = http_request(get_default_host_creds(address), PROBE, "GET", **once)
    except (MlflowException, OSError) as error:
        raise RegistryError(
            f"MLflow at {address} does not answer ({error}). Start it (`make up`), or set "
            "KREISLAUF_MLFLOW_URL."
        ) from error
    if answer.status_code in LOGIN:
        raise RegistryError(
            f"MLflow at {address} wants another login (it answers {answer.status_code}). Set "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN."
        )
    return MlflowClient(address)


def uri() -> str:
    """Address of MLflow."""
    address = settings().mlflow_url
    if address.startswith("sqlite:///"):
        Path(address.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    return address


def experiment(model: str) -> str:
    """The id of the experiment of the model, which is made if need be.

    Raises RegistryError if somebody has deleted it, or if the server is of another major version: a
    server that does not say its version is believed.
    """
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    mlflow = client()
    location = None
    if uri().startswith("sqlite"):
        # Without a server MLflow would put artifacts into the working directory.
        location = str(settings().home / "mlflow" / "artifacts")
    if uri().startswith("http"):
        text = http_request(get_default_host_creds(uri()), "/version", "GET").text.strip()
        major = re.fullmatch(r"(\d+)\.\d+\S*", text)
        if major and major[1] != installed("mlflow").split(".")[0]:
            raise RegistryError(
                f"MLflow at {uri()} is version {text}, and this client is {installed('mlflow')}: "
                "install a server of the same major version."
            )
    create_once(mlflow.create_experiment, model, artifact_location=location)
    stored = mlflow.get_experiment_by_name(model)
    if stored.lifecycle_stage != "active":
        raise RegistryError(
            f"MLflow's experiment {model} (id {stored.experiment_id}) was deleted. Restore it: "
            f"`MLFLOW_TRACKING_URI={shlex.quote(uri())} .venv/bin/mlflow experiments restore "
            f"--experiment-id {stored.experiment_id}`."
        )
    return stored.experiment_id


@contextmanager
def run(model: str, name: str | None = None, run_id: str | None = None, **tags: str) -> Iterator:
    """A run in the experiment of the model: a new one, or the one called `run_id`."""
    import mlflow

    mlflow.set_experiment(experiment_id=experiment(model))
    with mlflow.start_run(run_id, run_name=name, tags={"code": code_version(), **tags}) as started:
        yield started


def search(model: str, query: str) -> list:
    """Runs in the experiment of the model, newest first."""
    mlflow = client()
    stored = mlflow.get_experiment_by_name(model)
    if stored is None:
        return []
    experiments = [stored.experiment_id]
    page = mlflow.search_runs(experiments, query, max_results=1000)
    matches = list(page)
    while page.token:
        page = mlflow.search_runs(experiments, query, max_results=1000, page_token=page.token)
        matches += page
    return matches


def create_once(create: Callable, name: str, **options) -> None:
    """Call `create`, unless what it makes is there already."""
    from mlflow.exceptions import MlflowException

    try:
        create(name, **options)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def code_version() -> str:
    """The commit that this process runs from, or the installed version where there is no
    checkout."""
    if not shutil.which("git"):
        return installed("kreislauf")
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    answer = subprocess.run(command, capture_output=True, text=True)
    if answer.returncode != 0:
        return installed("kreislauf")
    return answer.stdout.strip()


def log_environment() -> None:
    """Store the names and versions of all installed packages with the run."""
    import mlflow

    mlflow.log_text("\n".join(packages()), "environment.txt")


@cache
def packages() -> list[str]:
    """Each installed package as `name==version`, sorted; a process reads them once."""
    return sorted("{Name}=={Version}".format_map(each.metadata) for each in distributions())


def log_dataset(lineage: Lineage) -> None:
    """Store with the run what it learns from."""
    import mlflow
    from mlflow.data.delta_dataset_source import DeltaDatasetSource
    from mlflow.data.meta_dataset import MetaDataset

    source = DeltaDatasetSource(
        path=f"{settings().lake}/{lineage.table}", delta_table_version=lineage.table_version
    )
    # MLflow takes 36 characters; the whole digest is in the version's lineage.
    dataset = MetaDataset(source, lineage.table, lineage.digest[:36])  # type: ignore[abstract]
    mlflow.log_input(dataset, context="training")


def log_curves(run_id: str, curves: list[tuple[str, int, float]]) -> None:
    """Store (name, step, value) with a run."""
    from mlflow.entities import Metric

    metrics = [Metric(name, value, timestamp=0, step=step) for name, step, value in curves]
    for start in range(0, len(metrics), 500):
        client().log_batch(run_id, metrics=metrics[start : start + 500])


def curves(run_id: str) -> list[tuple[str, int, float]]:
    """What `log_curves` stored: all numbers of a run that have several steps."""
    mlflow = client()
    points = []
    for name in sorted(mlflow.get_run(run_id).data.metrics):
        history = mlflow.get_metric_history(run_id, name)
        if len(history) > 1:
            points += [(point.key, point.step, point.value) for point in history]
    return points


def log_onnx(path: Path):
    """Store an ONNX file as the run's model, without any pickle. Returns MLflow's ModelInfo."""
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
            tensor_type = tensor.type.tensor_type
            dtype = tensor_dtype_to_np_dtype(tensor_type.elem_type)
            dims = tensor_type.shape.dim
            shape = tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in dims)
            specs.append(TensorSpec(dtype, shape, tensor.name))
        return Schema(specs)

    return ModelSignature(inputs=schema(model.graph.input), outputs=schema(model.graph.output))
