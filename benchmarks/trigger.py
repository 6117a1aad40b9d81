"""How long from an event to the first line of the retraining it starts, and how many trainings do
events start?

`python -m benchmarks.trigger` starts the stack (the gateway left out) with the deployments and the
automation of prefect.yaml, on a small simulated shop whose models train in seconds; only these
training parameters are its own. It emits SINGLES events, each after the one before is done with;
BURST identical ones at once, after new data; and one while a training runs, during which new data
arrived. The first line is the flow's own "Retraining ...", the first statement of its body, at the
time in Prefect's log.

The last line is JSON: the median of the seconds from the event to the first line, less the
trigger's debounce window; and trainings, which are counted where the flow's task `fit` began: a
retraining that finds no new data says so and trains nothing.
"""

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

import httpx
import polars as pl
import yaml

from demo.shop import START_MS, Plan, simulate
from deployments import stack
from kreislauf.clock import DAY_MS

MODEL = "session_recommender"
PLAN = Plan(days=9, sessions_per_day=2600, articles=400, change_day=3)
QUICK = {"epochs": 1, "ranker_epochs": 1}
SINGLES = 9
BURST = 10
PATIENCE = 1200
"""Seconds after which something will not happen any more."""
OVER = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


def window() -> float:
    """Seconds during which the retraining's trigger folds events into one run, of prefect.yaml."""
    deployments = yaml.safe_load((stack.ROOT / "prefect.yaml").read_text())["deployments"]
    (trigger,) = next(d for d in deployments if d["name"] == "retrain")["triggers"]
    return trigger["within"]


def marks(
    occurred: datetime, run: dict, states: Sequence[dict], logs: Sequence[dict]
) -> dict[str, float]:
    """Seconds from the event to each step of the run it started. Raises StopIteration if one has
    not happened yet."""
    when = {
        "flow run created": run["created"],
        "flow run due": next(
            s["state_details"]["scheduled_time"] for s in states if s["type"] == "SCHEDULED"
        ),
        "picked up by the worker": next(s["timestamp"] for s in states if s["type"] == "PENDING"),
        "Prefect imported, pull step begins": next(
            m["timestamp"] for m in logs if "pull step" in m["message"]
        ),
        "flow imported, and due: running": next(
            s["timestamp"] for s in states if s["type"] == "RUNNING"
        ),
        "first line": next(m["timestamp"] for m in logs if m["message"].startswith("Retraining ")),
    }
    return {
        step: (datetime.fromisoformat(at) - occurred).total_seconds() for step, at in when.items()
    }


def report(found: Sequence[dict[str, float]], folded: float) -> str:
    """Medians of when each step was reached, in the order of time."""
    when = {step: statistics.median(one[step] for one in found) for step in found[0]} | {
        "debounce window ends": folded
    }
    return "\n".join(
        f"  {seconds:6.2f}  {step}"
        for seconds, step in sorted((at, step) for step, at in when.items())
    )


def ask(what: str, **wanted: object) -> list[dict]:
    """Prefect's records of a kind, such as "flow_runs"."""
    answer = httpx.post(f"{os.environ['PREFECT_API_URL']}/{what}/filter", json=wanted, timeout=60)
    return answer.raise_for_status().json()


def retrainings(since: datetime) -> list[dict]:
    """Runs of the deployment that were created since then, not by its schedule; oldest first."""
    found = ask(
        "flow_runs", deployments={"name": {"any_": ["retrain"]}}, sort="EXPECTED_START_TIME_ASC"
    )
    return [
        r
        for r in found
        if not r["auto_scheduled"] and datetime.fromisoformat(r["created"]) >= since
    ]


def trainings(since: datetime) -> list[dict]:
    """Tasks `fit` that have begun since then."""
    return ask(
        "task_runs",
        task_runs={"name": {"like_": "fit-"}, "start_time": {"after_": since.isoformat()}},
    )


def until(condition: Callable[[], object], what: str) -> None:
    """Wait. Raises TimeoutError."""
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {PATIENCE} s")
        time.sleep(0.5)


def emit(times: int = 1) -> datetime:
    """Emit the same event several times, at once; when the first one occurred."""
    from kreislauf import events

    emitted = [
        events.emit_model_event(events.DRIFT_DETECTED, MODEL, "Drift: a benchmark.")
        for _ in range(times)
    ]
    assert emitted[0] is not None
    return emitted[0].occurred


def settle(since: datetime) -> list[dict]:
    """All retrainings since then, once all of them are over and no other has come for two
    windows."""
    until(lambda: retrainings(since), "an event starts a retraining")
    quiet = time.monotonic()
    while time.monotonic() < quiet + 2 * window() + 5:
        until(
            lambda: all(r["state_type"] in OVER for r in retrainings(since)), "the retrainings end"
        )
        seen = len(retrainings(since))
        time.sleep(1)
        if len(retrainings(since)) > seen:
            quiet = time.monotonic()
    if any(r["state_type"] != "COMPLETED" for r in retrainings(since)):
        raise RuntimeError(
            f"not every retraining completed: {[r['state_type'] for r in retrainings(since)]}"
        )
    return retrainings(since)


def single() -> dict[str, float]:
    """One event on a stack with nothing else to do: see `marks`."""
    occurred = emit()
    until(lambda: retrainings(occurred), "an event starts a retraining")
    until(lambda: retrainings(occurred)[0]["state_type"] in OVER, "the retraining ends")
    # Prefect's clients send their logs every two seconds.
    time.sleep(4)
    (run,) = retrainings(occurred)
    logs = ask("logs", logs={"flow_run_id": {"any_": [run["id"]]}}, sort="TIMESTAMP_ASC")
    states = httpx.get(
        f"{os.environ['PREFECT_API_URL']}/flow_run_states/", params={"flow_run_id": run["id"]}
    ).json()
    found = marks(occurred, run, sorted(states, key=lambda s: s["timestamp"]), logs)
    print("  ".join(f"{seconds:.2f} {step}" for step, seconds in found.items()), flush=True)
    return found


class Shop:
    """Days of the simulated shop, as they arrive in the lake."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows = simulate(PLAN)
        self.day = 0

    def arrive(self, days: int) -> None:
        """The next days of data."""
        from flows.ingest import ingest

        day = (pl.col("ts") - START_MS) // DAY_MS
        rows = self.rows.filter(day >= self.day, day < self.day + days)
        raw = self.folder / f"{self.day}.jsonl"
        events = pl.struct("aid", "ts", "type").alias("events")
        rows.group_by("session", maintain_order=True).agg(events).write_ndjson(raw)
        ingest(str(raw), MODEL)
        self.day += days


def during(shop: Shop) -> tuple[list[dict], datetime]:
    """An event starts a training, during which data and another event arrive: all retrainings, and
    when that was."""
    shop.arrive(2)
    first = emit()
    until(lambda: trainings(first), "a training begins")
    shop.arrive(2)
    second = emit()
    runs = settle(first)
    ended = min(datetime.fromisoformat(fit["end_time"]) for fit in trainings(first))
    if ended < second:
        raise RuntimeError("The training had ended before the event that was to come during it.")
    return runs, second


def hurry() -> None:
    """Let the deployment train with `QUICK`; everything else about it stays."""
    (found,) = ask("deployments", deployments={"name": {"any_": ["retrain"]}})
    changed = {"parameters": found["parameters"] | {"params": QUICK}}
    httpx.patch(
        f"{os.environ['PREFECT_API_URL']}/deployments/{found['id']}", json=changed
    ).raise_for_status()


def measure(folder: Path) -> dict:
    """All of it; the environment says where the servers are."""
    hurry()
    shop = Shop(folder)
    shop.arrive(3)
    settle(emit())
    print(
        f"load {os.getloadavg()[0]:.2f} of {os.cpu_count()} cores; s from the event to each step:",
        flush=True,
    )
    found = [single() for _ in range(SINGLES)]
    print(f"medians:\n{report(found, window())}", flush=True)
    shop.arrive(2)
    occurred = emit(BURST)
    runs = settle(occurred)
    fits = trainings(occurred)
    print(f"{BURST} events at once: {len(runs)} flow runs, {len(fits)} trainings", flush=True)
    after_runs, second = during(shop)
    after = trainings(second)
    print(
        f"an event during a training: {len(after_runs)} flow runs with the first, {len(after)} trainings after it"
    )
    seconds = [one["first line"] - window() for one in found]
    return {
        "median_seconds": round(statistics.median(seconds), 2),
        "trainings_for_ten_events": len(fits),
        "trainings_after_event_during_training": len(after),
        "slowest_seconds": round(max(seconds), 2),
        "events": SINGLES,
        "window_seconds": window(),
    }


def main() -> None:
    """See the module."""
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
