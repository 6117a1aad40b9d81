"""A stack as `make up` starts it, and what data, events and people do to it, for `faults.py`."""

import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from uuid import UUID

import psutil
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import FlowRun, State
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.sorting import FlowRunSort
from prefect.events import AutomationCore, Event, Resource

import models
from benchmarks import fault_data
from demo.waiting import until
from deployments import personal_changes, processes, stack
from kreislauf import events

MODEL = "returns"
RESOURCE = f"kreislauf.model.{MODEL}"
TRIGGER = "retrain-on-drift-or-decay"
"""Trigger of each deployment of retrain in prefect.yaml."""
PATIENCE = 600.0
"""Seconds within which the loop has to close again without a person."""
RUN_ID = "PREFECT__FLOW_RUN_ID"
"""Variable of a process that runs a flow."""
SETTINGS = ("KREISLAUF_", "PREFECT_", "MLFLOW_")
"""Beginnings of the variables of this process that a loop does not get."""
OPEN = ("SCHEDULED", "PENDING", "RUNNING", "CANCELLING", "PAUSED")
"""Types of state after which something else follows by itself."""


@dataclass
class Loop:
    """A running stack."""

    home: Path
    environment: Mapping[str, str]
    """Environment of `make up`, always the same: another one would start servers anew."""
    arrivals: int = 0
    """How often data has arrived."""
    length: float = 0.0
    """Seconds from RUNNING to COMPLETED of the last retraining."""
    outages: list[tuple[float, float]] = field(default_factory=list)
    """Stretches in which the gateway could not answer, in seconds since 1970."""

    @property
    def rows(self) -> int:
        """Number of orders that were sent."""
        return self.arrivals * fault_data.ROWS

    @property
    def watermark(self) -> int:
        """Time of the newest order, ms since 1970."""
        return fault_data.order_time(self.rows - 1)

    @property
    def running(self) -> dict[str, dict]:
        """`run.json`."""
        return processes.read(self.home)

    @property
    def gateway(self) -> str:
        """Where people's requests go."""
        return f"{self.running['gateway']['url']}/v1/{MODEL}/predict"

    @cached_property
    def client(self) -> SyncPrefectClient:
        """A client of the stack's Prefect, whose address stays."""
        return SyncPrefectClient(self.running["prefect"]["api"])

    def up(self) -> None:
        """`make up`, without those who watch."""
        code = (
            "from deployments import stack; from kreislauf.settings import settings; "
            "stack.up(settings().home)"
        )
        command = [sys.executable, "-c", code]
        done = subprocess.run(
            command, cwd=stack.ROOT, env=self.environment, capture_output=True, text=True
        )
        if done.returncode:
            raise RuntimeError(f"make up has failed:\n{done.stdout}{done.stderr}")

    def down(self) -> None:
        """`make down`, and the runs whose worker was killed."""
        stack.down(self.home)
        for process in self.flow_processes():
            processes.kill(process.pid)

    def flow_processes(self) -> dict[psutil.Process, UUID]:
        """Processes of this stack that run a flow, and which run it is."""
        flows = {}
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                variables = process.environ()
                if variables.get("KREISLAUF_HOME") == str(self.home) and RUN_ID in variables:
                    flows[process] = UUID(variables[RUN_ID])
        return flows

    def all_processes(self) -> list[psutil.Process]:
        """Servers, worker, and all that they have started."""
        families = [processes.family(record) for record in self.running.values()]
        return [*{*self.flow_processes(), *itertools.chain.from_iterable(families)}]

    def kill(self, service: str) -> None:
        """Kill a server with all its processes; the runs of a worker live on."""
        flows = self.flow_processes()
        family = processes.family(self.running[service])
        send([process for process in family if process not in flows], signal.SIGKILL)

    def kill_run(self, run: FlowRun) -> None:
        """Kill the process that runs a flow."""
        flows = self.flow_processes()
        send([process for process, id in flows.items() if id == run.id], signal.SIGKILL)

    @contextmanager
    def outage(self) -> Iterator[None]:
        """A stretch in which the gateway need not answer."""
        began = time.time()
        yield
        self.outages.append((began, time.time()))

    def begin(self) -> FlowRun:
        """New data, and the run that an event starts."""
        before = {run.id for run in self.retrainings()}
        self.arrive()
        self.emit()
        until(
            lambda: {run.id for run in self.retrainings()} - before,
            PATIENCE,
            "an event starts a run",
        )
        return next(run for run in self.retrainings() if run.id not in before)

    def arrive(self) -> None:
        """The next days of orders come into the lake by the deployment `ingest`."""
        path = self.home / "raw" / f"{self.arrivals}.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_text(fault_data.orders(self.arrivals))
        self.arrivals += 1
        self.start("ingest", source=str(path), model=MODEL)

        def is_loaded() -> bool:
            loads = [run for run in self.runs("ingest") if run.parameters["source"] == str(path)]
            return any(type_of(run) == "COMPLETED" for run in loads)

        until(is_loaded, PATIENCE, "the new data is loaded")

    def emit(self) -> None:
        """What the monitor says when the shop has changed."""
        event = Event(
            event=events.DRIFT_DETECTED,
            resource=Resource({"prefect.resource.id": RESOURCE}),
            payload={"model": MODEL, "reason": "The shop has changed."},
        )
        self.client.request("POST", "/events", json=[event.model_dump(mode="json")])

    def start(self, deployment: str, **parameters: object) -> FlowRun:
        """A run that somebody has asked for."""
        return self.client.create_flow_run_from_deployment(
            self.deployment(deployment).id, parameters=parameters
        )

    def deployment(self, name: str) -> DeploymentResponse:
        """A deployment as the server has it."""
        return self.client.read_deployment_by_name(f"{name}/{name}")

    def runs(self, deployment: str) -> list[FlowRun]:
        """The newest runs that are due, the newest first."""
        due = {"before_": (datetime.now(UTC) + timedelta(minutes=1)).isoformat()}
        criteria = {
            "deployment_id": {"any_": [self.deployment(deployment).id]},
            "expected_start_time": due,
        }
        return self.client.read_flow_runs(
            flow_run_filter=FlowRunFilter.model_validate(criteria),
            sort=FlowRunSort.EXPECTED_START_TIME_DESC,
            limit=50,
        )

    def retrainings(self) -> list[FlowRun]:
        """The newest retrainings of this model."""
        return [run for run in self.runs("retrain") if run.parameters.get("model") == MODEL]

    def reach(self, run: FlowRun, *types: str) -> FlowRun:
        """The run in a state of these types."""
        expectation = f"{run.name} is {' or '.join(types)}"
        until(lambda: type_of(self.read(run)) in types, PATIENCE, expectation)
        return self.read(run)

    def read(self, run: FlowRun) -> FlowRun:
        """The run as it is now."""
        return self.client.read_flow_run(run.id)

    def history(self, run: FlowRun) -> list[State]:
        """All states of a run, the oldest first."""
        states = self.client.read_flow_run_states(run.id)
        return sorted(states, key=lambda state: state.timestamp)


def start(home: Path) -> Loop:
    """A loop with two releases. The environment of this process names the home from now on, and
    its model type."""
    folder = home / "types" / "models"
    for name, file in ((MODEL, "benchmarks/fault_model.py"), ("tiny", "tests/models/tiny.py")):
        (folder / name).mkdir(parents=True)
        shutil.copyfile(stack.ROOT / file, folder / name / "__init__.py")
    models.__path__[:] = [path for path in models.__path__ if "/types/" not in path]
    models.__path__.append(str(folder))
    for name in [
        name for name in os.environ if name.startswith(("KREISLAUF_", "PREFECT_", "MLFLOW_"))
    ]:
        del os.environ[name]
    os.environ |= {"KREISLAUF_HOME": str(home), "PREFECT_HOME": str(home / "prefect")}
    path = os.pathsep.join([str(folder.parent), os.environ.get("PYTHONPATH", "")])
    loop = Loop(home, {**os.environ, "PYTHONPATH": path})
    loop.up()
    retrain_after_events(loop.client)
    for _ in range(2):
        undisturbed = loop.reach(loop.begin(), "COMPLETED")
        loop.length = undisturbed.total_run_time.total_seconds()
    return loop


def retrain_after_events(client: SyncPrefectClient) -> None:
    """Copy the trigger of `retrain` for this model, as a second model's deployment has one."""
    deployment = client.read_deployment_by_name("retrain/retrain")
    (trigger,) = personal_changes.triggers_of(client, deployment.id)
    content = trigger.model_dump(mode="json", include={*AutomationCore.model_fields})
    content["name"] = f"{TRIGGER}-of-{MODEL}"
    content["trigger"]["match"] = {"prefect.resource.id": RESOURCE}
    client.create_automation(AutomationCore.model_validate(content))


def type_of(run: FlowRun) -> str:
    """The type of a run's state."""
    assert run.state
    return run.state.type.value


def send(recipients: list[psutil.Process], number: signal.Signals) -> None:
    """Send a signal to processes, and wait for those that it kills."""
    for process in recipients:
        # Postgres ends its other processes when one of them is killed.
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)
    if number == signal.SIGKILL:
        psutil.wait_procs(recipients, timeout=30)
