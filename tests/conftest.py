"""Fixtures of all tests: a place of their own, Prefect's test harness, a small shop."""

import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import polars as pl
import psutil
import pytest

from deployments import environment, processes, stack
from kreislauf.settings import settings
from tests.flows.prepared import Preparations

ROOT = Path(__file__).resolve().parent.parent
DEAD_WORKER = pytest.StashKey[str]()
"""A worker that died."""
os.environ["DO_NOT_TRACK"] = "true"
for name in [n for n in os.environ if n.startswith(("KREISLAUF_", "PREFECT_", "MLFLOW_", "AWS_"))]:
    if name != "KREISLAUF_DATA":
        del os.environ[name]
# The harness's server records the states of tasks in batches: one by one they take a third of its
# time. It knows of a task a second late.
os.environ["PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE"] = "20"
os.environ["PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL"] = "1"
# A stack that a developer runs in this checkout is none of the tests' business.
os.environ["KREISLAUF_HOME"] = os.devnull + "/home"


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """A test is named by its argument of bytes, not by their content: what packs them may write the
    time into them, and each worker of pytest-xdist has to come to the same names."""
    return argname if isinstance(val, bytes) else None


def pytest_testnodedown(node: Any, error: object) -> None:
    """Print the exit status of a worker that died; -9 is SIGKILL, as when memory runs out."""
    if error:
        status = "is still there"
        with suppress(subprocess.TimeoutExpired):
            status = f"ended with {node.gateway._io.popen.wait(10)}"
        print(f"\n{node.gateway.id} {status}: {error}", flush=True)
        node.config.stash[DEAD_WORKER] = node.gateway.id


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A run that has lost a worker fails; pytest-xdist lets it pass if no test ran just then."""
    if DEAD_WORKER in session.config.stash and not session.exitstatus:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Everything that the embedded defaults keep, per test."""
    monkeypatch.setenv("KREISLAUF_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="session")
def prefect_harness(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A Prefect server for flows that are called as plain functions; about 15 seconds, so once for
    all tests."""
    from prefect.settings import (
        PREFECT_API_SSL_CERT_FILE,
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
        PREFECT_LOGGING_TO_API_ENABLED,
        temporary_settings,
    )
    from prefect.testing.utilities import prefect_test_harness

    certificate = environment.one_certificate(tmp_path_factory.mktemp("certificate"))
    quick = {
        # Each client would read all that this machine trusts, though the server speaks plain HTTP.
        PREFECT_API_SSL_CERT_FILE: str(certificate),
        # The heartbeat thread would hold every flow for a second at its end.
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,
        # Tests read what is logged in their own process.
        PREFECT_LOGGING_TO_API_ENABLED: False,
    }
    with prefect_test_harness(server_startup_timeout=120), temporary_settings(quick):
        yield


@pytest.fixture(scope="session")
def empty_mlflow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database with its tables: making them takes seconds, copying the file does not."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_registered_models()
    return path


@pytest.fixture(scope="session")
def orders_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the orders of the tiny model type are delivered: to a copied lake as to its original,
    because the folder is the name of a source."""
    return tmp_path_factory.mktemp("orders")


@pytest.fixture(scope="session")
def preparations(tmp_path_factory: pytest.TempPathFactory) -> Preparations:
    """What the tests of this process began with so far."""
    return Preparations(tmp_path_factory.mktemp("preparations"))


@pytest.fixture
def mlflow_store(home: Path, empty_mlflow: Path) -> None:
    """An empty MLflow of the test's own, in a SQLite file."""
    (home / "mlflow").mkdir(parents=True)
    shutil.copyfile(empty_mlflow, home / "mlflow" / "mlflow.db")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real data; tests that need it are skipped, and say so, where it is absent."""
    folder = Path(os.environ.get("KREISLAUF_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder}: set KREISLAUF_DATA")
    return folder


@pytest.fixture(scope="session")
def small_shop() -> pl.DataFrame:
    """Events of 16 days of a tiny simulated shop: its season changes on day 8."""
    from demo.shop import Plan, simulate

    return simulate(Plan(days=16, sessions_per_day=60, articles=120, change_day=8))


def aliases(model: str) -> dict[str, int]:
    """Version numbers by alias, as MLflow says."""
    from mlflow import MlflowClient

    registered = MlflowClient(settings().mlflow_url).get_registered_model(model)
    return {alias: int(number) for alias, number in registered.aliases.items()}


@pytest.fixture
def other_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder `models` of another repository, on the path: what is put there is a model type."""
    import models

    folder = tmp_path / "elsewhere" / "models"
    folder.mkdir(parents=True)
    monkeypatch.syspath_prepend(str(folder.parent))
    monkeypatch.setattr(models, "__path__", [*models.__path__, str(folder)])
    yield folder
    names = {path.name for path in folder.iterdir()}
    for module in [m for m in sys.modules if m.startswith("models.") and m.split(".")[1] in names]:
        del sys.modules[module]
        # The package `models` has its modules as attributes, too.
        vars(models).pop(module.split(".")[1], None)


@pytest.fixture
def tiny(other_models: Path) -> str:
    """The name of a model type that no flow has heard of."""
    return copied("tiny", other_models)


@pytest.fixture
def wordy(other_models: Path) -> str:
    """The name of a model type with text inside and out."""
    return copied("wordy", other_models)


def copied(name: str, folder: Path) -> str:
    """The name of a model type of `tests/models`, which is put into a folder `models`."""
    (folder / name).mkdir()
    shutil.copyfile(ROOT / "tests" / "models" / f"{name}.py", folder / name / "__init__.py")
    return name


@pytest.fixture
def own_triton(home: Path) -> Iterator[dict]:
    """A Triton that a test may kill."""
    record = stack.up(home, ("triton",))["triton"]
    yield record
    processes.stop(record)


@pytest.fixture
def triton(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dict]:
    """A real Triton of the test's own, without a model; `repository` is its folder.

    It starts in half a second. To empty one for the next test takes longer, because Triton waits a
    second for each model's end.
    """
    folder = tmp_path_factory.mktemp("triton")
    record = stack.up(folder, ("triton",))["triton"]
    monkeypatch.setenv("KREISLAUF_TRITON_URL", record["grpc"])
    monkeypatch.setenv("KREISLAUF_TRITON_REPOSITORY", str(folder / "triton"))
    yield {**record, "repository": folder / "triton"}
    kill_triton(record)


def kill_triton(record: dict) -> None:
    """Kill a Triton and its models at once, and remove the shared memory that it then leaves.

    Nobody waits until they have ended, which takes a second or two.
    """
    members = processes.family(record)
    left = {path for process in members for path in shared_memory(process)}
    for process in members:
        processes.kill(process.pid)
    for path in left:
        path.unlink(missing_ok=True)


def shared_memory(process: psutil.Process) -> Iterator[Path]:
    """The shared memory of Triton's that a process has open."""
    with suppress(FileNotFoundError, ProcessLookupError):
        for line in Path(f"/proc/{process.pid}/maps").read_text().splitlines():
            path = line.split(maxsplit=5)[-1]
            if path.startswith("/dev/shm/triton_"):
                yield Path(path)


@contextmanager
def moto(folder: Path) -> Iterator[tuple[str, dict]]:
    """URL and process record of an S3 emulator: deltalake holds the GIL in some calls, a thread
    could not answer it."""
    port = processes.free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    record = processes.spawn("moto", command, folder, os.environ)
    try:
        processes.wait(record, f"http://127.0.0.1:{port}/moto-api/", 60)
        yield f"http://127.0.0.1:{port}", record
    finally:
        processes.stop(record)


@pytest.fixture(scope="session")
def moto_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The S3 emulator of all tests."""
    with moto(tmp_path_factory.mktemp("moto")) as (url, _):
        yield url


@pytest.fixture
def s3(moto_url, monkeypatch):
    """s3fs on an emptied S3 emulator with one bucket, `shop`; the AWS variables point to it."""
    urllib.request.urlopen(
        urllib.request.Request(f"{moto_url}/moto-api/reset", method="POST")
    ).close()
    return shop_on(moto_url, monkeypatch)


def shop_on(url: str, monkeypatch: pytest.MonkeyPatch):
    """s3fs on an S3 server that gets the bucket `shop`; the AWS variables point to it."""
    import s3fs

    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    filesystem = s3fs.S3FileSystem(skip_instance_cache=True, use_listings_cache=False)
    filesystem.mkdir("shop")
    return filesystem


@pytest.fixture
def s3_lake(s3, monkeypatch):
    """The lake on S3, at an address with a slash at its end."""
    monkeypatch.setenv("KREISLAUF_LAKE", "s3://shop/lake/")


@pytest.fixture(params=["disk", "s3"])
def storage(request: pytest.FixtureRequest) -> str:
    """The lake on disk, and once more on S3; `indirect` parameters choose."""
    if request.param == "s3":
        request.getfixturevalue("s3_lake")
    return request.param
