"""Replay a shop period by period: serve, ingest, monitor.

Prefect and the worker do what follows from an event. The weekly schedule of `retrain` follows the
wall clock, but in a replay weeks pass in minutes: a week without an event ends with a retraining,
as the schedule would start it.

Import this only after the environment says where the stack is.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from prefect.deployments import run_deployment

from demo import retrainings
from demo.recalls import ask
from flows.ingest import ingest
from flows.monitor import monitor
from flows.retrain import retrain
from kreislauf import registry, sources
from kreislauf.evaluation import gate, split
from kreislauf.lake.validate import validate_lines
from kreislauf.monitoring.policy import ASKED
from kreislauf.release import releases
from models import spec


@dataclass(frozen=True)
class Period:
    """The events of one stretch of the replay."""

    number: int
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


def replay(
    model: str,
    files: list[Path],
    period_days: float,
    say: Callable[[str], None],
    everything: Callable[[], object],
) -> Iterator[Period]:
    """Make the first file's model live, wait for `everything` else that runs, then replay each
    further file; yields its period. Raises split.TooSmall if the first file is."""
    say(f"history: {ingest(str(files[0]), model).rows_kept} events; training the first model")
    first = retrain(model, reason="the first model")
    if first.outcome == "waiting":
        raise split.TooSmall(first.reason)
    if first.release is None or first.version is None:
        raise RuntimeError(f"The first model did not go live: {first.reason}")
    say(f"version {first.version} is live: {first.reason}")
    everything()
    frozen = registry.onnx_file(registry.get(model, first.version))
    for number, file in enumerate(files[1:], 1):
        yield replay_period(model, number, file, frozen, first.version, period_days)


def replay_period(
    model: str, number: int, file: Path, frozen: Path, first: int, period_days: float
) -> Period:
    """Serve the period's sessions with the live version, then let the loop learn of them."""
    model_type = spec.load(model)
    judged = validate_lines(
        model_type.table, list(sources.open_file(str(file), model_type.table).chunks())
    )
    recalls = ask(model, judged.rows, frozen)
    if recalls.version == first and not np.isclose(recalls.live, recalls.frozen, atol=1e-3):
        raise RuntimeError(
            f"Version {first} answers {recalls.live} in Triton and {recalls.frozen} in process."
        )
    ingest(str(file), model)
    since = datetime.now(UTC)
    newest = registry.versions(model)[0].number
    finding = monitor(model, window_days=period_days)
    assert finding is not None, "the first model is live"
    trigger = "event"
    if finding.action != ASKED:
        trigger = "schedule"
        parameters = {"model": model, "reason": "weekly schedule"}
        deployment = f"retrain/{retrainings.deployment_of(model)}"
        run_deployment(deployment, parameters=parameters, timeout=0)
    story = story_since(model, since, newest)
    return Period(
        number=number,
        requests=recalls.requests,
        version=recalls.version,
        live_recall=recalls.live,
        frozen_recall=recalls.frozen,
        table_recall=recalls.table,
        finding=finding.reason,
        trigger=trigger,
        story=story,
    )


def story_since(model: str, since: datetime, before: int) -> str:
    """Wait until the retraining that was started after `since` is over; its outcome in words.

    `before` is the newest version at that time.
    """
    retrainings.wait(since, model)
    newest = registry.versions(model)[0]
    current = releases.current(model)
    if newest.number == before:
        return "no version was trained: cooling down, or waiting."
    decision = gate.Decision.model_validate_json(newest.decision or "")
    live_now = "nothing is live"
    if current:
        live_now = f"version {current.champion} is live"
    reasons = " ".join(decision.reasons)
    return f"{decision.outcome} version {newest.number}: {reasons} Now {live_now}."


def summary(model: str, periods: list[Period]) -> dict:
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
        "live_version": releases.history(model)[-1].champion,
        "requests": sum(p.requests for p in periods),
    }
