"""The loop's verb: train > promote > publish."""

from typing import Any

from prefect import flow, get_run_logger
from pydantic import BaseModel, ConfigDict

from flows.promote import promote
from flows.publish import publish
from flows.train import train
from models import spec
from tasks import lake, registry, releases, split


class Retraining(BaseModel):
    """What came of a retraining."""

    model_config = ConfigDict(frozen=True)

    outcome: str
    """promote, refuse, inconclusive, or cooling down."""
    reason: str
    version: int | None = None
    release: int | None = None


@flow
def retrain(
    model: str = "session_recommender",
    reason: str = "asked for by a person",
    params: dict[str, Any] | None = None,
    cooldown_days: float = 1.0,
) -> Retraining:
    """Train a challenger, judge it, and publish it if it is better. Safe to kill and to run again at any point.

    Args:
        model: Name of the model type.
        reason: Why, in a sentence: an event's words, the schedule, a person.
        params: Training parameters that differ from the defaults.
        cooldown_days: Days of data that must have arrived since the last retraining; a burst of events trains once.

    Returns:
        Outcome, version and release.
    """
    logger = get_run_logger()
    logger.info(f"Retraining {model}: {reason}")
    finish_what_a_crash_left(model)
    if waiting := cooldown(model, cooldown_days):
        logger.info(waiting)
        return Retraining(outcome="cooling down", reason=waiting)
    version = train(model, params)
    decision = promote(model, version.number)
    release = publish(model, version.number) if decision.outcome == "promote" else None
    registry.close(version)
    return Retraining(
        outcome=decision.outcome,
        reason=" ".join(decision.reasons),
        version=version.number,
        release=release.number if release else None,
    )


def finish_what_a_crash_left(model: str) -> None:
    """A release that was written by a run which then died: verify it, mirror it, and be done with it.

    Aliases that somebody moved, or that a rollback which died did not move, are put right too.
    """
    live = releases.current(model)
    if live and not (version := registry.get(model, live.champion)).closed:
        publish(model, live.champion)
        registry.close(version)
    elif live:
        registry.mirror(model, live.champion, live.challenger, live.previous)


def cooldown(model: str, days: float) -> str:
    """Why it is too early to train again, measured on the data's time; empty when it is not."""
    finished = next((v for v in registry.versions(model) if v.closed), None)
    watermark = lake.watermark(spec.load(model).table)
    if finished is None or watermark is None:
        return ""
    passed = (watermark - finished.lineage.watermark) / split.DAY_MS
    if passed >= days:
        return ""
    return (
        f"{passed:.2f} days of data have arrived since version {finished.number} was trained; "
        f"the next retraining waits for {days:g}."
    )
