"""Replay a shop period by period: serve, ingest, monitor.

Prefect and the worker do what follows from an event. The weekly schedule of `retrain` follows the
wall clock, but in a replay weeks pass in minutes: a week without an event ends with a retraining,
as the schedule would start it.

Import this only after the environment says where the stack is.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment

from flows.ingest import ingest
from flows.monitor import monitor
from flows.retrain import retrain
from kreislauf import lake, registry, sources
from kreislauf.clock import DAY_MS
from kreislauf.evaluation import gate, scoring
from kreislauf.lake.validate import validate_lines
from kreislauf.monitoring.policy import ASKED
from kreislauf.release import releases
from models import spec
from serving import live
from tasks.recover import successor_key

MODEL = "session_recommender"
HISTORY = 0.4
"""Share of the sessions that the first model learns from."""
PERIOD_DAYS = 7.0
"""Approximate days of a period."""
REACTION_SECONDS = 120
"""Seconds within which a retraining has to start."""
RETRAINING_SECONDS = 1_200
"""Seconds within which a retraining has to end."""


@dataclass(frozen=True)
class Period:
    """The events of one stretch of the replay."""

    number: int
    start: int
    """ms since 1970 UTC."""
    sessions: int
    requests: int
    version: int
    """Live version that answered."""
    live_recall: float
    frozen_recall: float
    """Recall of the first model, had it been kept."""
    table_recall: float
    """Recall of the trivial baseline, fitted on everything before the period."""
    finding: str
    trigger: str
    """Cause of the retraining: event or schedule."""
    story: str
    seconds: float


def replay(files: list[Path], period_days: float, say: Callable[[str], None]) -> Iterator[Period]:
    """Make the first file's model live, then replay each further file; yields its period."""
    say(f"history: {ingest(str(files[0]), MODEL).rows_kept} events; training the first model")
    first = retrain(MODEL, reason="the first model")
    if first.release is None or first.version is None:
        raise RuntimeError(f"The first model did not go live: {first.reason}")
    say(f"version {first.version} is live: {first.reason}")
    frozen = registry.onnx_file(registry.get(MODEL, first.version))
    for number, file in enumerate(files[1:], 1):
        yield replay_period(number, file, frozen, first.version, period_days)


def replay_period(number: int, file: Path, frozen: Path, first: int, period_days: float) -> Period:
    """Serve the period's sessions with the live version, then let the loop learn of them."""
    model_type = spec.load(MODEL)
    began = time.monotonic()
    judged = validate_lines(
        model_type.table, list(sources.open_file(str(file), model_type.table.line).chunks())
    )
    examples = model_type.examples(judged.rows)
    with ThreadPoolExecutor(1) as pool:
        frozen_answers = pool.submit(scoring.answer, frozen, examples.inputs)
        version, answers = live.answer(MODEL, examples.inputs)
        live_recall = float(model_type.score(examples, answers).mean())
        frozen_recall = float(model_type.score(examples, frozen_answers.result()).mean())
    table_recall = float(
        scoring.baseline_scores(model_type, lake.read(model_type.table), examples).mean()
    )
    if version == first and not np.isclose(live_recall, frozen_recall, atol=1e-3):
        raise RuntimeError(
            f"Version {first} answers {live_recall} in Triton and {frozen_recall} in process."
        )
    ingest(str(file), MODEL)
    since = datetime.now(UTC)
    newest = registry.versions(MODEL)[0].number
    finding = monitor(MODEL, window_days=period_days)
    assert finding is not None, "the first model is live"
    trigger = "event"
    if finding.action != ASKED:
        trigger = "schedule"
        parameters = {"model": MODEL, "reason": "weekly schedule"}
        run_deployment("retrain/retrain", parameters=parameters, timeout=0)
    story = wait_for_retraining(since, newest)
    return Period(
        number=number,
        start=int(judged.rows[model_type.table.time].min()),  # type: ignore[arg-type]
        sessions=judged.lines_in,
        requests=len(examples),
        version=version,
        live_recall=live_recall,
        frozen_recall=frozen_recall,
        table_recall=table_recall,
        finding=finding.reason,
        trigger=trigger,
        story=story,
        seconds=time.monotonic() - began,
    )


def wait_for_retraining(since: datetime, before: int) -> str:
    """Hold the replay's clock until the retraining that was started after `since` is over.

    Returns its outcome in words. `before` is the newest version at that time.
    """
    until(lambda: bool(retrainings(since)), REACTION_SECONDS, "no retraining was started")
    until(
        lambda: all(is_over(run) for run in retrainings(since)),
        RETRAINING_SECONDS,
        "the retraining did not end",
    )
    failed = [run for run in retrainings(since) if run.state and not run.state.is_completed()]
    if failed:
        raise RuntimeError(f"Retraining {failed[0].name} ended as {failed[0].state}")
    newest = registry.versions(MODEL)[0]
    current = releases.current(MODEL)
    if newest.number == before:
        return "cooling down or waiting: too little new data since the last retraining."
    decision = gate.Decision.model_validate_json(newest.decision or "")
    live_now = "nothing is live"
    if current:
        live_now = f"version {current.champion} is live"
    reasons = " ".join(decision.reasons)
    return f"{decision.outcome} version {newest.number}: {reasons} Now {live_now}."


def is_over(run: FlowRun) -> bool:
    """Whether a run has ended. A crashed one has not: the flow recover begins another for it."""
    return bool(run.state and run.state.is_final() and not run.state.is_crashed())


def retrainings(since: datetime) -> list[FlowRun]:
    """Runs of the deployment `retrain` created after `since`, but not by its schedule; not those
    that crashed and that another one has taken up."""
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(
            deployment_filter=DeploymentFilter(name=DeploymentFilterName(any_=["retrain"])),
            limit=100,
        )
    taken_up = {run.idempotency_key for run in runs}
    return [
        run
        for run in runs
        if not run.auto_scheduled
        and run.created
        and run.created >= since
        and successor_key(run) not in taken_up
    ]


def until(condition: Callable[[], bool], seconds: float, problem: str) -> None:
    """Poll once a second. Raises TimeoutError naming the `problem`."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(
                f"{problem}: not within {seconds:.0f} s. "
                "Look at the Prefect UI and the worker's log."
            )
        time.sleep(1)


def summary(periods: list[Period]) -> dict:
    """The replay in numbers; recalls averaged over the last quarter."""
    tail = periods[-max(1, len(periods) // 4) :]
    outcomes = [p.story.split()[0] for p in periods]
    return {
        "periods": len(periods),
        "frozen_recall": round(float(np.mean([p.frozen_recall for p in tail])), 4),
        "table_recall": round(float(np.mean([p.table_recall for p in tail])), 4),
        "live_recall": round(float(np.mean([p.live_recall for p in tail])), 4),
        "retrainings": sum(
            outcome in ("promote", "refuse", "inconclusive") for outcome in outcomes
        ),
        "events": sum(p.trigger == "event" for p in periods),
        "promoted": outcomes.count("promote"),
        "refused": outcomes.count("refuse"),
        "inconclusive": outcomes.count("inconclusive"),
        "live_version": releases.history(MODEL)[-1].champion,
        "requests": sum(p.requests for p in periods),
    }


def split_by_time(events: pl.DataFrame, folder: Path) -> tuple[list[Path], float]:
    """Write the history and each period as a file in OTTO's format.

    Returns the files and the days of a period. The history is the time until HISTORY of the
    sessions have begun; the rest is cut into equal periods of about PERIOD_DAYS. A session that
    goes on in a later period continues in that period's file.
    """
    starts = events.group_by("session").agg(pl.col("ts").min())["ts"].sort()
    begin = int(starts[int(len(starts) * HISTORY)])
    end = int(events["ts"].max()) + 1  # type: ignore[arg-type]
    count = max(1, round((end - begin) / DAY_MS / PERIOD_DAYS))
    length = (end - begin) / count
    period = (
        ((pl.col("ts") - begin) / length).floor().cast(pl.Int32).clip(-1, count - 1).alias("period")
    )
    lines = (
        events.with_columns(period)
        .group_by("period", "session", maintain_order=True)
        .agg(pl.struct("aid", "ts", "type").alias("events"))
    )
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for number in range(-1, count):
        sessions = lines.filter(pl.col("period") == number).select("session", "events")
        if not sessions.is_empty():
            files.append(folder / f"{number + 1:03d}.jsonl")
            sessions.write_ndjson(files[-1])
    return files, length / DAY_MS
