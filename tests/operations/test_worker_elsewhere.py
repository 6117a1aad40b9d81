"""A worker of another checkout, at another path, runs the deployments, or says what is missing."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun

from deployments import processes, stack
from tests.operations.conftest import Checkout, start
from tests.waiting import until

pytestmark = pytest.mark.system
LINE = '{"session": 1, "events": [{"aid": 5, "ts": 1661724000000, "type": "clicks"}]}\n'


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prefect server with deployments from a checkout that is gone."""
    home = tmp_path_factory.mktemp("server")
    api = start(home, ("postgres", "prefect"))["prefect"]["api"]
    try:
        deployer = Checkout.copied_to(tmp_path_factory.mktemp("a") / "the shop's checkout")
        done = deployer.run("deployments.deploy", api=api)
        assert done.returncode == 0, done.stdout + done.stderr
        shutil.rmtree(deployer.folder)
        yield api
    finally:
        stack.down(home)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """Where the worker runs."""
    return Checkout.copied_to(tmp_path_factory.mktemp("b") / "größer #1 Laden")


@contextmanager
def worker(command: list, folder: Path, env: dict) -> Iterator[Path]:
    """A worker, until it is no longer wanted. Its log."""
    record = processes.spawn("worker", command, folder, env)
    try:
        yield Path(record["log"])
    finally:
        processes.stop(record)


def addresses(folder: Path) -> dict[str, str]:
    """All that a worker is told, each in a place of its own."""
    return {
        "KREISLAUF_LAKE": str(folder / "lake"),
        "KREISLAUF_RELEASES": str(folder / "releases"),
        "KREISLAUF_MLFLOW_URL": f"sqlite:///{folder / 'mlflow.db'}",
        "KREISLAUF_TRITON_URL": "127.0.0.1:1",
        "KREISLAUF_TRITON_REPOSITORY": str(folder / "triton"),
        "KREISLAUF_SPOOL": str(folder / "spool"),
    }


def ingested(api: str, source: Path) -> FlowRun:
    """A run of the deployment ingest that has ended."""
    with SyncPrefectClient(api) as client:
        ingest = client.read_deployment_by_name("ingest/ingest")
        parameters = {"source": str(source)}
        run = client.create_flow_run_from_deployment(ingest.id, parameters=parameters)
        until(lambda: client.read_flow_run(run.id).state.is_final(), 240, "the run ends")
        return client.read_flow_run(run.id)


def test_a_worker_of_another_checkout_runs_what_a_checkout_that_is_gone_deployed(
    api, checkout, tmp_path
):
    source = tmp_path / "raw.jsonl"
    source.write_text(LINE)
    env = checkout.env(api, **addresses(tmp_path))
    with worker([checkout.python, "-m", "deployments.worker"], tmp_path, env):
        run = ingested(api, source)
    assert run.state.is_completed(), run.state.message
    assert (tmp_path / "lake" / "events" / "_delta_log").is_dir()


def test_a_worker_that_was_not_told_where_things_are_does_not_start(api, checkout, tmp_path):
    variables = addresses(tmp_path)
    del variables["KREISLAUF_LAKE"], variables["KREISLAUF_MLFLOW_URL"]
    done = checkout.run("deployments.worker", api=api, **variables)
    assert done.returncode == 1
    (sentence,) = done.stderr.splitlines()
    assert "was not told where things are" in sentence
    assert "set KREISLAUF_LAKE, KREISLAUF_MLFLOW_URL there, or KREISLAUF_HOME" in sentence

    done = checkout.run("deployments.worker", api=api, KREISLAUF_HOME=str(tmp_path / "unmounted"))
    assert f"KREISLAUF_HOME is {tmp_path / 'unmounted'}, and the worker on" in done.stderr


def test_a_run_on_a_worker_of_prefects_says_what_is_missing(api, checkout, tmp_path):
    command = [checkout.python.with_name("prefect"), "worker", "start", "--pool", "local"]
    variables = {"KREISLAUF_PYTHON": str(checkout.python), "PREFECT_WORKER_QUERY_SECONDS": "1"}
    with worker(command, tmp_path, checkout.env(api, **variables)):
        run = ingested(api, tmp_path)
    assert run.state.is_failed(), run.state
    assert "was not told where things are" in run.state.message
    assert "set KREISLAUF_LAKE, KREISLAUF_RELEASES" in run.state.message


def test_a_worker_without_kreislauf_says_how_to_start_one(api, checkout, tmp_path):
    command = [checkout.python.with_name("prefect"), "worker", "start", "--pool", "local"]
    env = checkout.env(api, PREFECT_WORKER_QUERY_SECONDS="1")
    with worker(command, tmp_path, env) as log:
        ingested(api, tmp_path)
    assert "KREISLAUF_PYTHON: is not set: start this worker anew, by make worker" in log.read_text()
