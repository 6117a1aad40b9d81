"""How soon after an event does the retraining begin, and how many trainings do events start?

`python -m benchmarks.trigger` starts the stack without the gateway, with the deployments and the
automation of prefect.yaml. The small simulated shop has models that train in seconds; only these
training parameters differ. It emits three sorts of events. SINGLES events come each after the one
before is done with. BURST identical events come at once, after new data. An event comes while a
training runs, during which new data arrived. The first line is the flow's own "Retraining ...", the
first statement of its body, at the time in Prefect's log.

The last line is JSON. It has the median of the seconds from the event to the first line, less the
trigger's debounce window. It also has the trainings, which are counted where the flow's task `fit`
began: a retraining that has no new data says so and trains nothing.
"""

import json
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import httpx
import polars as pl
import yaml

from demo import raw_files
from demo.shop import START_MS, Plan, simulate
from demo.waiting import until
from deployments import stack
from kreislauf.clock import DAY_MS

MODEL = "session_recommender"
PLAN = Plan(days=9, sessions_per_day=2600, articles=400, change_day=3)
QUICK = {"epochs": 1, "ranker_epochs": 1}
SINGLES = 9
BURST = 10
PATIENCE = 1200
"""Seconds after which a wait is given up."""
OVER = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
"""States of a run that has ended."""


def window() -> float:
    """Seconds in which the retraining's trigger folds events into one run, as in prefect.yaml."""
    deployments = yaml.safe_load((stack.ROOT / "prefect.yaml").read_text())["deployments"]
    (trigger,) = next(d for d in deployments if d["name"] == "retrain")["triggers"]
    return trigger["within"]


def marks(
    occurred: datetime, run: dict, states: Sequence[dict], logs: Sequence[dict]
) -> dict[str, float]:
    """Seconds from the event to each step of the run it started.

    Raises StopIteration if a step has not happened yet.
    """

    def state(name: str) -> dict:
        return next(state for state in states if state["type"] == name)

    def message(text: str) -> dict:
        return next(message for message in logs if text in message["message"])

    times = {
        "flow run created": run["created"],
        "flow run due": state("SCHEDULED")["state_details"]["scheduled_time"],
        "picked up by the worker": state("PENDING")["timestamp"],
        "Prefect imported, pull step begins": message("pull step")["timestamp"],
        "flow imported, and due: running": state("RUNNING")["timestamp"],
        "first line": first_line(logs)["timestamp"],
    }
    return {
        step: (datetime.fromisoformat(moment) - occurred).total_seconds()
        for step, moment in times.items()
    }


def first_line(logs: Sequence[dict]) -> dict:
    """The message of the flow's first statement. Raises StopIteration if there is none yet."""
    return next(message for message in logs if message["message"].startswith("Retraining "))


def report(runs: Sequence[dict[str, float]], window_seconds: float) -> str:
    """Medians of the seconds to each step, in the order of time."""
    medians = {step: statistics.median(run[step] for run in runs) for step in runs[0]}
    medians["debounce window ends"] = window_seconds
    ordered = sorted((seconds, step) for step, seconds in medians.items())
    return "\n".join(f"  {seconds:6.2f}  {step}" for seconds, step in ordered)


def ask(table: str, **conditions: object) -> list[dict]:
    """Prefect's records of a table, such as "flow_runs"."""
    url = f"{os.environ['PREFECT_API_URL']}/{table}/filter"
    return httpx.post(url, json=conditions, timeout=60).raise_for_status().json()


def retrainings(since: datetime) -> list[dict]:
    """Runs of the deployment that were created since then, not by its schedule; oldest first."""
    runs = ask(
        "flow_runs", deployments={"name": {"any_": ["retrain"]}}, sort="EXPECTED_START_TIME_ASC"
    )
    unscheduled = [run for run in runs if not run["auto_scheduled"]]
    return [run for run in unscheduled if datetime.fromisoformat(run["created"]) >= since]


def trainings(since: datetime) -> list[dict]:
    """Tasks `fit` that have begun since then."""
    return ask(
        "task_runs",
        task_runs={"name": {"like_": "fit-"}, "start_time": {"after_": since.isoformat()}},
    )


def emit(times: int = 1) -> datetime:
    """Emit the same event several times at once; returns the time of the first."""
    from kreislauf import events

    emitted = [
        events.emit_model_event(events.DRIFT_DETECTED, MODEL, "Drift: a benchmark.")
        for _ in range(times)
    ]
    assert emitted[0] is not None
    return emitted[0].occurred


def wait_for_retrainings(since: datetime) -> list[dict]:
    """All retrainings since then, once they are over and none has come for two windows.

    Raises RuntimeError if one did not complete.
    """
    until(lambda: retrainings(since), PATIENCE, "an event starts a retraining")
    last_start = time.monotonic()
    while time.monotonic() < last_start + 2 * window() + 5:
        until(
            lambda: all(run["state_type"] in OVER for run in retrainings(since)),
            PATIENCE,
            "the retrainings end",
        )
        count = len(retrainings(since))
        time.sleep(1)
        if len(retrainings(since)) > count:
            last_start = time.monotonic()
    runs = retrainings(since)
    states = [run["state_type"] for run in runs]
    if any(state != "COMPLETED" for state in states):
        raise RuntimeError(f"not every retraining completed: {states}")
    return runs


def measure_single() -> dict[str, float]:
    """Marks of one event on an idle stack."""
    occurred = emit()
    until(lambda: retrainings(occurred), PATIENCE, "an event starts a retraining")
    until(lambda: retrainings(occurred)[0]["state_type"] in OVER, PATIENCE, "the retraining ends")
    # Prefect's clients send their logs every two seconds.
    time.sleep(4)
    (run,) = retrainings(occurred)
    logs = ask("logs", logs={"flow_run_id": {"any_": [run["id"]]}}, sort="TIMESTAMP_ASC")
    url = f"{os.environ['PREFECT_API_URL']}/flow_run_states/"
    states = httpx.get(url, params={"flow_run_id": run["id"]}).json()
    steps = marks(occurred, run, sorted(states, key=lambda state: state["timestamp"]), logs)
    print("  ".join(f"{seconds:.2f} {step}" for step, seconds in steps.items()), flush=True)
    return steps


class Shop:
    """A simulated shop whose days arrive in the lake."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows = simulate(PLAN)
        self.day = 0

    def arrive(self, days: int) -> None:
        """Ingest the next days of data."""
        from flows.ingest import ingest

        day = (pl.col("ts") - START_MS) // DAY_MS
        rows = self.rows.filter(day >= self.day, day < self.day + days)
        raw = self.folder / f"{self.day}.jsonl"
        ingest(str(raw_files.write(rows, raw)), MODEL)
        self.day += days


def emit_during_training(shop: Shop) -> tuple[list[dict], datetime]:
    """Start a training by an event; while it runs, data and a second event arrive.

    Returns all retrainings, and the time of the second event.
    """
    shop.arrive(2)
    first = emit()
    until(lambda: trainings(first), PATIENCE, "a training begins")
    shop.arrive(2)
    second = emit()
    runs = wait_for_retrainings(first)
    ended = min(datetime.fromisoformat(fit["end_time"]) for fit in trainings(first))
    if ended < second:
        raise RuntimeError("The training had ended before the event that was to come during it.")
    return runs, second


def use_quick_params() -> None:
    """Let the deployment train with `QUICK`; everything else about it stays."""
    (deployment,) = ask("deployments", deployments={"name": {"any_": ["retrain"]}})
    url = f"{os.environ['PREFECT_API_URL']}/deployments/{deployment['id']}"
    parameters = deployment["parameters"] | {"params": QUICK}
    httpx.patch(url, json={"parameters": parameters}).raise_for_status()


def measure(folder: Path) -> dict:
    """Measure singles, a burst, and an event during a training, on the environment's servers."""
    use_quick_params()
    shop = Shop(folder)
    shop.arrive(3)
    wait_for_retrainings(emit())
    print(
        f"load {os.getloadavg()[0]:.2f} of {os.cpu_count()} cores; s from the event to each step:",
        flush=True,
    )
    singles = [measure_single() for _ in range(SINGLES)]
    print(f"medians:\n{report(singles, window())}", flush=True)
    shop.arrive(2)
    occurred = emit(BURST)
    runs = wait_for_retrainings(occurred)
    fits = trainings(occurred)
    print(f"{BURST} events at once: {len(runs)} flow runs, {len(fits)} trainings", flush=True)
    both_runs, second = emit_during_training(shop)
    after = trainings(second)
    print(
        f"an event during a training: {len(both_runs)} flow runs with the first, "
        f"{len(after)} trainings after it"
    )
    seconds = [steps["first line"] - window() for steps in singles]
    return {
        "median_seconds": round(statistics.median(seconds), 2),
        "trainings_for_ten_events": len(fits),
        "trainings_after_event_during_training": len(after),
        "slowest_seconds": round(max(seconds), 2),
        "events": SINGLES,
        "window_seconds": window(),
    }


def main() -> None:
    """Start the stack, measure, and print the result."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        try:
            running = stack.up(home, ("postgres", "prefect", "mlflow", "triton", "worker"))
            os.environ |= stack.client_env(home, running) | {"PREFECT_LOGGING_LEVEL": "ERROR"}
            result = measure(home)
        finally:
            stack.down(home)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
