"""The whole stack: an event starts a worker's retraining, and a real Triton answers with the new
version.

The tests of this file build on each other, in this order: one stack takes half a minute to start.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
import polars as pl
import psutil
import pytest

from demo import raw_files
from demo.shop import START_MS, Plan, simulate
from deployments import processes, stack
from kreislauf.clock import DAY_MS
from models import spec
from tests.waiting import until

pytestmark = pytest.mark.slow

MODEL = "session_recommender"
# A day's sessions are enough to show that a model is as good as the table.
PLAN = Plan(days=10, sessions_per_day=1300, articles=200, change_day=3)
SMALL = spec.load(MODEL).Params.small().model_dump()
PATIENCE = 1200
"""Seconds after which something will not happen any more, however slow the machine is."""


@dataclass
class Stack:
    """A running stack and how to use it as a person would, from another process."""

    home: Path
    running: dict[str, dict]
    events: pl.DataFrame
    client: httpx.Client
    """Reads the certificates once, and not for each question."""

    def python(self, code: str) -> str:
        """Run `code` beside the stack; its last line of output."""
        env = stack.client_env(self.home, self.running) | {"PREFECT_LOGGING_LEVEL": "ERROR"}
        done = subprocess.run(
            [sys.executable, "-c", code], env=env, cwd=stack.ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip().splitlines()[-1] if done.stdout.strip() else ""

    def ingest(self, first: int, last: int) -> None:
        """Days [first, last) of the shop."""
        days = (self.events["ts"] - START_MS) // DAY_MS
        chosen = self.events.filter((days >= first) & (days < last))
        source = raw_files.write(chosen, self.home / "raw" / f"{first}.jsonl")
        self.python(f"from flows.ingest import ingest; ingest({str(source)!r})")

    def hurry(self) -> None:
        """Let the deployment train with the small preset; everything else about it stays."""
        deployment = self.deployment("retrain")
        self.change(deployment, {"parameters": deployment["parameters"] | {"params": SMALL}})

    def pause(self, *names: str) -> None:
        """Let no run of these deployments come between, whatever the clock says."""
        for name in names:
            self.change(self.deployment(name), {"paused": True})

    def deployment(self, name: str) -> dict:
        """A deployment as the server has it."""
        wanted = {"deployments": {"name": {"any_": [name]}}}
        api = self.running["prefect"]["api"]
        (deployment,) = self.client.post(f"{api}/deployments/filter", json=wanted).json()
        return deployment

    def change(self, deployment: dict, fields: dict) -> None:
        """Give fields of a deployment other values."""
        api = self.running["prefect"]["api"]
        self.client.patch(f"{api}/deployments/{deployment['id']}", json=fields).raise_for_status()

    def emit_drift(self, times: int) -> None:
        """Emit the same event several times, as fast as possible."""
        self.python(
            "from kreislauf import events\n"
            f"for _ in range({times}):\n"
            f"    events.emit_model_event(events.DRIFT_DETECTED, {MODEL!r}, 'Drift: a test.')\n"
            "import time; time.sleep(3)"
        )

    def retrainings(self) -> list[dict]:
        """See `runs`."""
        return self.runs("retrain")

    def runs(self, deployment: str) -> list[dict]:
        """Runs of the deployment that were not created by its schedule, oldest first."""
        wanted = {
            "deployments": {"name": {"any_": [deployment]}},
            "sort": "EXPECTED_START_TIME_ASC",
        }
        runs = (
            self.client.post(f"{self.running['prefect']['api']}/flow_runs/filter", json=wanted)
            .raise_for_status()
            .json()
        )
        return [run for run in runs if not run["auto_scheduled"]]

    def facts(self) -> dict:
        """Versions, releases, open MLflow runs, and which version Triton answers with."""
        return json.loads(
            self.python(
                "import json\n"
                "from mlflow import MlflowClient\n"
                "from models import spec\n"
                "from serving import live\n"
                "from kreislauf import registry\n"
                "from kreislauf.release import releases\n"
                "from kreislauf.settings import settings\n"
                f"model_type = spec.load({MODEL!r})\n"
                "inputs = model_type.tensors(model_type.golden())\n"
                "number, outputs = live.answer(model_type.name, inputs)\n"
                "client = MlflowClient(settings().mlflow_url)\n"
                "experiment = client.get_experiment_by_name(model_type.name).experiment_id\n"
                "print(json.dumps({\n"
                "    'versions': sorted(v.number for v in registry.versions(model_type.name)),\n"
                "    'releases': [r.champion for r in releases.history(model_type.name)],\n"
                "    'aliases': {\n"
                "        alias: int(number) for alias, number in\n"
                "        client.get_registered_model(model_type.name).aliases.items()\n"
                "    },\n"
                "    'running': len(client.search_runs(\n"
                "        [experiment], \"attributes.status = 'RUNNING'\"\n"
                "    )),\n"
                "    'answered_by': number,\n"
                "    'answers': len(model_type.answers(outputs)),\n"
                "}))"
            )
        )


def client() -> httpx.Client:
    """A client that takes a new connection for each question: servers close those that are idle."""
    return httpx.Client(timeout=60, limits=httpx.Limits(max_keepalive_connections=0))


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    # Everything has to work where people keep their things.
    home = tmp_path_factory.mktemp("stack") / "mein größer #1 Laden 100%"
    # What a killed process leaves behind must not lie about in the machine's own temporary folder.
    scratch = tmp_path_factory.mktemp("scratch")
    patch = pytest.MonkeyPatch()
    patch.setenv("TMPDIR", str(scratch))
    patch.setenv("XDG_CACHE_HOME", str(scratch))
    try:
        shop = Stack(home, stack.up(home), simulate(PLAN), client())
        shop.ingest(0, 3)
        shop.hurry()
        shop.pause("monitor", "collect", "watch")
        shop.python(
            f"from flows.retrain import retrain; assert retrain(params={SMALL}).release == 1"
        )
        yield shop
    finally:
        stack.down(home)
        patch.undo()


def test_a_burst_of_ten_events_starts_one_training_and_triton_answers_with_its_version(loop: Stack):
    loop.ingest(3, 6)
    loop.emit_drift(times=10)
    until(loop.retrainings, PATIENCE, "the automation starts a retraining")
    until(
        lambda: all(r["state_type"] == "COMPLETED" for r in loop.retrainings()),
        PATIENCE,
        "the retraining completes",
    )
    time.sleep(12)
    assert [r["state_type"] for r in loop.retrainings()] == ["COMPLETED"], (
        "one event window, one run"
    )
    facts = loop.facts()
    assert facts["versions"] == [1, 2]
    assert facts["releases"] == [1, 2]
    assert facts["answered_by"] == 2
    assert facts["answers"] > 0
    assert facts["aliases"] == {"champion": 2, "previous": 1}


def test_kill_9_of_the_flow_alone_is_made_good_by_its_worker(loop: Stack):
    loop.ingest(6, 8)
    run = until_training(loop)
    kill(worker(loop).children(recursive=True))
    until_made_good(loop, run)


def test_kill_9_of_worker_and_flow_during_training_is_made_good_by_a_new_worker(loop: Stack):
    loop.ingest(8, 10)
    run = until_training(loop)
    kill([worker(loop), *worker(loop).children(recursive=True)])
    loop.running["worker"] = stack.start_worker(loop.home, loop.running)
    processes.write(loop.home, loop.running)
    until_made_good(loop, run)
    facts = loop.facts()
    assert facts["versions"] == [1, 2, 3, 4]
    assert len(facts["releases"]) == len(set(facts["releases"])), "no version is published twice"
    assert facts["answered_by"] == facts["releases"][-1]
    assert facts["running"] == 0, "no MLflow run is left open"


def test_clicks_that_fall_bring_the_previous_version_back_once(loop: Stack):
    before = loop.facts()["releases"]
    fell = (
        "import time; from kreislauf import events; "
        f"events.emit_model_event(events.KPI_FELL, {MODEL!r}, 'Clicks fell.'); time.sleep(3)"
    )
    loop.python(fell)
    until(lambda: loop.runs("rollback"), PATIENCE, "the automation starts a rollback")
    until(
        lambda: loop.runs("rollback")[0]["state_type"] == "COMPLETED",
        PATIENCE,
        "the rollback completes",
    )
    facts = loop.facts()
    assert facts["releases"] == [*before, before[-2]]
    assert facts["answered_by"] == before[-2]
    loop.python(fell)
    until(lambda: len(loop.runs("rollback")) == 2, PATIENCE, "the automation starts another")
    until(
        lambda: loop.runs("rollback")[1]["state_type"] == "FAILED",
        PATIENCE,
        "an alert alone does not undo a rollback",
    )
    assert loop.facts()["releases"] == facts["releases"]


def worker(loop: Stack) -> psutil.Process:
    process = processes.find(loop.running["worker"])
    assert process
    return process


def kill(these: list[psutil.Process]) -> None:
    assert these
    for process in these:
        process.kill()
    psutil.wait_procs(these, timeout=10)


def until_made_good(loop: Stack, run: str) -> None:
    """Wait until the run that takes the killed one up, and no other, is completed without a
    person."""

    def finished() -> bool:
        mine = [r for r in loop.retrainings() if r["idempotency_key"] == f"takes-up-{run}"]
        return [r["state_type"] for r in mine] == ["COMPLETED"]

    until(finished, PATIENCE, "the run that takes it up completes without a person")
    states = [r["state_type"] for r in loop.retrainings()]
    assert set(states) == {"COMPLETED", "CRASHED"}


def until_training(loop: Stack) -> str:
    """Emit an event and wait until a retraining's MLflow-visible work has begun: its task `fit`
    runs. The run's id."""
    since = datetime.now(UTC).isoformat()
    loop.emit_drift(times=1)
    running_fits = {
        "state": {"type": {"any_": ["RUNNING"]}},
        "start_time": {"after_": since},
        "name": {"like_": "fit-"},
    }
    url = f"{loop.running['prefect']['api']}/task_runs/filter"

    def fitting() -> list[dict]:
        return loop.client.post(url, json={"task_runs": running_fits}).raise_for_status().json()

    until(fitting, PATIENCE, "a training begins")
    time.sleep(3)
    return loop.retrainings()[-1]["id"]
