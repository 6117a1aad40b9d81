"""Everything of the local stack is killed, or stopped for two minutes, in the middle of a run."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import psutil
import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter
from prefect.states import Cancelling

from benchmarks import fault_loop
from deployments import processes, stack, worker
from tests.operations.conftest import start
from tests.operations.waiting import wait
from tests.waiting import until

pytestmark = pytest.mark.system
SERVICES = ("postgres", "prefect", "worker")
PATIENCE = 600
"""Seconds within which the loop has to be closed again without a person."""


class Machine:
    """A stack, and a deployment whose runs wait."""

    def __init__(self, home: Path):
        self.home = home
        self.running = start(home, SERVICES)
        self.client = SyncPrefectClient(self.running["prefect"]["api"])
        self.deployment = self.client.create_deployment(
            self.client.create_flow(wait),
            name="wait",
            tags=["kreislauf"],
            entrypoint="tests/operations/waiting.py:wait",
            pull_steps=[{"deployments.worker.enter_checkout": {}}],
            work_pool_name=worker.WORK_POOL,
            job_variables={"env": {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}},
            concurrency_limit=1,
            parameter_openapi_schema={},
        )

    def up(self) -> None:
        """`make up`."""
        self.running = start(self.home, SERVICES)

    def processes(self) -> list[psutil.Process]:
        """The servers, the worker, and the processes of its runs."""
        return [p for record in self.running.values() for p in processes.family(record)]

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all of them."""
        fault_loop.send(self.processes(), number)

    def begin(self, folder: Path) -> UUID:
        """Start a run, and wait until its process has begun."""
        folder.mkdir()
        run = self.client.create_flow_run_from_deployment(
            self.deployment, parameters={"folder": str(folder)}
        )
        until(lambda: started(folder) == 1, PATIENCE, "the run begins")
        return run.id

    def states(self) -> dict[UUID, str]:
        """The type of state of each run of the deployment."""
        ours = FlowRunFilter.model_validate({"deployment_id": {"any_": [self.deployment]}})
        runs = self.client.read_flow_runs(flow_run_filter=ours)
        return {run.id: run.state.type.value for run in runs if run.state}


def started(folder: Path) -> int:
    """Number of processes that began for a run and those that took it up."""
    log = folder / "processes"
    return len(log.read_text().splitlines()) if log.exists() else 0


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    home = tmp_path_factory.mktemp("machine")
    try:
        yield Machine(home)
    finally:
        stack.down(home)


def test_a_run_is_taken_up_after_everything_was_killed_and_a_cancelled_one_is_not(
    machine, tmp_path
):
    folder = tmp_path / "killed"
    lost = machine.begin(folder)
    machine.signal(signal.SIGKILL)
    machine.up()
    until(lambda: started(folder) == 2, PATIENCE, "the run is taken up")
    states = machine.states()
    assert states.pop(lost) == "CRASHED"
    assert list(states.values()) == ["RUNNING"]

    (successor,) = states
    machine.client.set_flow_run_state(successor, Cancelling())
    until(lambda: machine.states()[successor] == "CANCELLED", PATIENCE, "the run is cancelled")
    time.sleep(150)
    assert started(folder) == 2, "what a person has cancelled stays so"
    assert sorted(machine.states().values()) == ["CANCELLED", "CRASHED"]


def test_a_run_that_was_stopped_with_everything_goes_on_alone(machine, tmp_path):
    before = machine.states()
    folder = tmp_path / "stopped"
    run = machine.begin(folder)
    machine.signal(signal.SIGSTOP)
    time.sleep(120)
    machine.signal(signal.SIGCONT)
    time.sleep(150)
    assert started(folder) == 1
    (folder / "end").touch()
    until(lambda: machine.states()[run] == "COMPLETED", PATIENCE, "the run ends")
    assert machine.states() == before | {run: "COMPLETED"}
