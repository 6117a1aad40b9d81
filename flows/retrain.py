"""The loop's verb: train > promote > publish."""

from typing import Any, Literal

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from pydantic import BaseModel, ConfigDict

from flows.promote import promote
from flows.publish import publish
from flows.train import train
from kreislauf import events, lake, registry
from kreislauf.clock import DAY_MS
from kreislauf.experiment import running
from kreislauf.lake import approvals
from kreislauf.monitoring import alarms, status
from kreislauf.pages import release as release_page
from kreislauf.registry import questions
from kreislauf.release import permission, releases
from kreislauf.settings import settings
from kreislauf.training import inputs
from models import spec
from tasks.page import draw_page
from tasks.train import unfinished_version

WAITING = "waiting for approval"


class Retraining(BaseModel):
    """What came of a retraining."""

    model_config = ConfigDict(frozen=True)

    outcome: str
    """promote, refuse, inconclusive, cooling down, waiting, or waiting for approval."""
    reason: str
    version: int | None = None
    release: int | None = None


@flow
def retrain(
    model: str = "session_recommender",
    reason: str = "asked for by a person",
    params: dict[str, Any] | None = None,
    cooldown_days: float = 1.0,
    approval: Literal["automatic", "manual"] = "automatic",
) -> Retraining:
    """Train a challenger, judge it, and publish it if it is better. Safe to kill and to run again
    at any point: what was begun in the last three days of data is finished before anything new.

    Args:
        model: Name of the model type.
        reason: Why, in a sentence: an event's words, the schedule, a person.
        params: Training parameters that differ from the defaults.
        cooldown_days: Days of data that must have arrived since the last retraining; a burst of
            events trains once.
        approval: With "manual" a version that may go live waits for a person, who answers with the
            flow approve. After a rollback it does so anyway, until the hold is lifted.

    Returns:
        Outcome, version and release.
    """
    logger = get_run_logger()
    logger.info(f"Retraining {model}: {reason}")
    finish_what_a_crash_left(model)
    too_early = cooldown(model, cooldown_days)
    if too_early:
        logger.info(too_early)
        return Retraining(outcome="cooling down", reason=too_early)
    version = unfinished_version(model, params or {})
    waiting = reason_to_wait(model, bool(version))
    if waiting:
        logger.info(waiting)
        return Retraining(outcome="waiting", reason=waiting)
    version = version or train(model, params)
    replaced = permission.was_replaced(version)
    if replaced:
        close(version, "refuse")
        return Retraining(outcome="refuse", reason=replaced, version=version.number)
    decision = promote(model, version.number)
    release = None
    if decision.outcome == "promote":
        withdraw_questions(version)
        hold = releases.hold(model)
        if hold or approval == "manual":
            question = ask_a_person(version, " ".join(decision.reasons), hold)
            close(version, WAITING)
            return Retraining(outcome=WAITING, reason=question, version=version.number)
        release = publish_or_close(version).number
    close(version, decision.outcome)
    return Retraining(
        outcome=decision.outcome,
        reason=" ".join(decision.reasons),
        version=version.number,
        release=release,
    )


def publish_or_close(version: registry.Version) -> releases.Release:
    """Publish the version. Raises PublishRefused for one that cannot go live; it is not tried again
    by the next retraining."""
    try:
        return publish(version.model, version.number)
    except permission.PublishRefused:
        registry.close(version)
        raise


def close(version: registry.Version, outcome: str) -> None:
    """Nothing is left to do with the version, and alarms that asked for it are resolved."""
    registry.close(version)
    alarms.resolve(
        version.model,
        version.lineage.watermark,
        f"Version {version.number} was trained: {outcome}.",
    )
    draw_page(version.model)


def withdraw_questions(version: registry.Version) -> None:
    """Nobody is asked about an older version any more, because this one was promoted."""
    for older in registry.versions(version.model):
        if older.question and older.number != version.number:
            questions.answer(older, f"withdrawn, because version {version.number} was promoted")
            get_run_logger().info(
                f"The question about version {older.number} is withdrawn: version "
                f"{version.number} was promoted."
            )


def ask_a_person(version: registry.Version, why: str, hold: str) -> str:
    """Ask whether the version goes live, and say why it may. The flow approve takes the answer,
    days later if need be. Returns the question."""
    name = f"{version.model} version {version.number}"
    question = f"{name} may go live. {why}"
    if hold:
        question += f" The model is on hold: {hold} To approve ends the hold."
    approvals.record(version.model, version.number, "asked", question)
    questions.ask(version, question)
    page = release_page.question_page(version, question)
    create_markdown_artifact(
        key=f"question-{version.model.replace('_', '-')}",
        markdown=page,
        description="What a person is asked about a version",
    )
    events.emit_model_event(
        events.MODEL_QUESTIONED, version.model, question, version=version.number
    )
    return question


def finish_what_a_crash_left(model: str) -> None:
    """Verify, mirror and close a release that was written by a run which then died.

    Aliases that somebody moved, or that a rollback which died did not move, are put right too.
    """
    live = releases.current(model)
    if live is None:
        return
    version = registry.lookup(model, live.champion)
    if version is None:
        get_run_logger().warning(
            f"{model} version {live.champion} is live and was deleted in MLflow: the next version "
            "is trained cold."
        )
    elif version.closed:
        registry.mirror(model, live.champion, live.tested_version, live.previous)
    else:
        publish(model, live.champion)
        registry.close(version)


def cooldown(model: str, days: float) -> str:
    """Why it is too early to train again, measured on the data's time; empty when it is not."""
    finished = registry.finished(model)
    watermark = lake.watermark(spec.load(model).table)
    if finished is None or watermark is None:
        return ""
    passed = (watermark - finished.lineage.watermark) / DAY_MS
    if passed >= days:
        return ""
    return (
        f"{passed:.2f} days of data have arrived since version {finished.number} was trained; "
        f"the next retraining waits for {days:g}."
    )


def no_data(model: str) -> str:
    """That nothing has arrived yet to learn from, in a sentence; empty if something has."""
    table = spec.load(model).table
    if lake.watermark(table) is not None:
        return ""
    return (
        f"No data of {model} has come yet: the table {table.name} in {settings().lake} has no "
        "rows. Load some with the flow ingest; then the next retraining makes the first model."
    )


def reason_to_wait(model: str, trained: bool) -> str:
    """Why the newest data should not be learnt from yet, or why a version could not be judged or
    would end an A/B test, and until when, unless it is `trained` already. Empty if none holds.
    Alarms and regret stay as they are."""
    live = releases.current(model)
    if live is None:
        lacking = no_data(model)
        if lacking or trained:
            return lacking
        return inputs.shortage(spec.load(model))
    suspicion = status.wait(model, live.champion)
    if suspicion or trained:
        return suspicion
    test = running.reason_to_wait(model)
    if test:
        return test
    champion = permission.registered_or_kept(model, live.champion)
    return inputs.reason_to_wait(spec.load(model), champion.lineage)
