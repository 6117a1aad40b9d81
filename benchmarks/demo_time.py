"""Where do the demo's seconds go?

`python -m benchmarks.demo_time` plays the story of `make demo` in a temporary home and prints the
seconds of each part. Those of tasks come from Prefect's records of their runs; export and parity,
which belong to the training, are timed in this process, where three of the four trainings run.
`a run's process` is the time from which the worker has a run until the run's code begins, with all
imports. Parts overlap: servers still start while the first model is trained. The last line is JSON.
"""

import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import ModuleType
from unittest import mock

import httpx

from demo.__main__ import Narrator, run_story, started
from models.session_recommender import export

STAGES = {
    "find": "ingest",
    "load ": "ingest",
    "replay": "ingest",
    "look at": "ingest",
    "fit": "training, with export and parity",
    "judge": "judging",
    "describe": "the card of a version",
    "load-": "publishing",
    "measure": "monitoring",
    "look-": "monitoring",
    "record": "monitoring",
}
"""Parts by the beginning of a task run's name."""


def main() -> None:
    """Play the story, and print the seconds of each part."""
    seconds: dict[str, float] = defaultdict(float)
    narrator = Narrator()
    with (
        tempfile.TemporaryDirectory() as folder,
        timed(export, "export", seconds),
        timed(export, "parity", seconds),
        started(Path(folder), narrator) as everything,
    ):
        seconds["servers that a training needs"] = narrator.seconds
        waiting = timed_function(everything, seconds, "waiting for the other servers")
        result = run_story(Path(folder), narrator, waiting)
        add_runs(everything()["prefect"]["api"], seconds)
    for part, spent in sorted(seconds.items(), key=lambda item: -item[1]):
        print(f"{spent:7.1f} s  {part}")
    parts = {part: round(spent, 1) for part, spent in seconds.items()}
    print(json.dumps({**result, "parts": parts}))


@contextmanager
def timed(module: ModuleType, name: str, seconds: dict[str, float]) -> Iterator[None]:
    """Within, the seconds of a module's function are added under its name."""
    function = timed_function(getattr(module, name), seconds, name)
    with mock.patch.object(module, name, function):
        yield


def timed_function(function: Callable, seconds: dict[str, float], part: str) -> Callable:
    """The function, whose seconds are added to a part."""

    def call(*arguments, **options):
        began = time.perf_counter()
        try:
            return function(*arguments, **options)
        finally:
            seconds[part] += time.perf_counter() - began

    return call


def add_runs(api: str, seconds: dict[str, float]) -> None:
    """Add what Prefect recorded of tasks, and of the processes in which the worker ran flows."""
    tasks = httpx.post(f"{api}/task_runs/filter", json={"limit": 200}).json()
    for run in tasks:
        stage = next((STAGES[begin] for begin in STAGES if run["name"].startswith(begin)), None)
        if stage:  # Not a flow within another one, which Prefect records as a task, too.
            seconds[stage] += run["total_run_time"]
    wanted = {"deployments": {"name": {"any_": ["retrain"]}}}
    for run in httpx.post(f"{api}/flow_runs/filter", json=wanted).json():
        states = httpx.get(f"{api}/flow_run_states/", params={"flow_run_id": run["id"]}).json()
        times = {state["type"]: datetime.fromisoformat(state["timestamp"]) for state in states}
        if "RUNNING" in times:
            spent = times["RUNNING"] - times["PENDING"]
            seconds["a run's process"] += spent.total_seconds()


if __name__ == "__main__":
    main()
