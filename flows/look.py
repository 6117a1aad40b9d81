"""Look at the A/B tests and hold-backs that run, and end those with a verdict."""

import logging
from typing import Literal

from prefect import flow, get_run_logger
from pydantic import NonNegativeFloat

from flows.experiment import QUESTION, end_test
from flows.publish import publish
from flows.retrain import ask_a_person
from flows.rollback import NothingToRollBackTo, is_available, rollback
from kreislauf import events, registry
from kreislauf.clock import MINUTE_MS
from kreislauf.experiment import running
from kreislauf.experiment.record import Record
from kreislauf.experiment.running import Running
from kreislauf.registry import questions
from kreislauf.registry.versions import DECLINED
from kreislauf.release import releases
from models import spec
from tasks.experiment import show, take_look, write_on_card
from tasks.page import draw_page

WHO = "the flow look"
TOO_LATE = "Nothing is done: another release came meanwhile."


@flow
def look(
    maturity_minutes: NonNegativeFloat = 60,
    approval: Literal["automatic", "manual"] = "automatic",
) -> list[Record]:
    """Judge each A/B test by what its users did, and act: a challenger with a proven benefit goes
    live, one that does harm is stopped within hours, a test that loses users of one arm is stopped,
    and one that has reached its horizon ends. A release that does harm, compared with the version
    that a share of the users kept, is rolled back.

    As many looks as one likes may be taken: harm and lost users are judged at all of them together,
    benefit at planned ones. It reads what `collect` has loaded. To run it again is harmless.

    Args:
        maturity_minutes: Age at which an answer counts. People may still react to a younger one,
            and what they did may not be loaded yet.
        approval: With "manual" a challenger with a proven benefit waits for a person, who answers
            with the flow approve. After a rollback it does so anyway, until the hold is lifted.

    Returns:
        The newest look at each test and hold-back that runs, or has ended now.

    Raises:
        release.permission.PublishRefused: A challenger with a proven benefit cannot go live, or the
            version before a release that does harm. The test goes on; the next run tries again.
        lake.LakeError: The tables of exposures or feedback cannot be read.
        Whatever one test raises, after the others were looked at.
    """
    records = []
    failures = []
    for model in spec.names():
        try:
            record = judge(model, int(maturity_minutes * MINUTE_MS), approval)
        except Exception as error:  # One model's failure is none of the others'.
            get_run_logger().error(f"{model} was not looked at to the end. {error}")
            failures.append(error)
            continue
        if record is not None:
            records.append(record)
    if failures:
        raise failures[0]
    return records


def judge(model: str, maturity: int, approval: str) -> Record | None:
    """The newest look at the test of a model type, after what follows from it; None without any.

    Answers younger than `maturity` (ms) do not count.
    """
    test = running.current(model)
    if test is None:
        return None
    record = take_look(test, maturity)
    if record is None:
        return None
    get_run_logger().info(f"{model}: {record.verdict.reason}")
    has_ended = act(test, record, approval)
    note_on_card(test, record)
    show(test, record)
    draw_page(model)
    if has_ended:
        announce(test, record)
    return record


def announce(test: Running, record: Record) -> None:
    """Tell Prefect's automations, and people, what came of a test that has ended: what the release
    log says."""
    release = releases.current(test.model)
    assert release is not None
    level = logging.INFO
    if record.verdict.outcome == "harm" and release.champion == test.judged_version:
        level = logging.WARNING
    get_run_logger().log(level, f"{test.model}: {release.reason}")
    events.emit_model_event(
        events.EXPERIMENT_ENDED,
        test.model,
        release.reason,
        outcome=record.verdict.outcome,
        version=test.judged_version,
    )


def note_on_card(test: Running, record: Record) -> None:
    """Write a verdict on the card of the version that it is about, after it has acted: what MLflow
    does not take delays no verdict."""
    if record.verdict.outcome == "running" or test.release.is_self_test:
        return
    try:
        write_on_card(test, record)
    except Exception as error:  # Artifact stores raise what they like.
        get_run_logger().warning(
            f"The card of {test.model} version {test.judged_version} does not say what came of its "
            f"test. {error}"
        )


def act(test: Running, record: Record, approval: str) -> bool:
    """Do what the verdict says, if the test is still in force; whether it has ended."""
    if record.verdict.outcome == "running":
        return False
    if test.is_hold_back:
        return end_hold_back(test, record)
    if test.release.is_self_test:
        return end_self_test(test, record)
    if record.verdict.outcome == "benefit":
        return win(test, record, approval)
    return stop(test, record)


def end_hold_back(test: Running, record: Record) -> bool:
    """Roll the release back if it does harm; else all users get it. Whether that was done."""
    previous = test.reference_version
    why = f"{test.release.trial} ends. {record.verdict.reason}"
    if record.verdict.outcome != "harm":
        return end_now(test, why)
    if previous == releases.NO_MODEL:
        stays = "It was compared with no model, and not with another version, so it stays."
        return end_now(test, f"{why} {stays}")
    if not is_available(test.model, previous):
        return end_now(test, f"{why} It was not rolled back: version {previous} was deleted.")
    if releases.current(test.model) != test.release:
        get_run_logger().info(TOO_LATE)
        return False
    reason = f"Compared with the users who kept version {previous}: {record.verdict.reason}"
    try:
        rollback(
            test.model,
            version=previous,
            reason=reason,
            who=WHO,
            automatic=True,
            live_version=test.judged_version,
        )
    except (releases.ReleaseConflict, NothingToRollBackTo) as error:
        get_run_logger().info(f"{TOO_LATE} {error}")
        return False
    return True


def win(test: Running, record: Record, approval: str) -> bool:
    """Publish the challenger, or ask a person whether to; whether the test has ended. It ends, too,
    if the person says no, or if the version was deleted."""
    assert test.release.challenger is not None
    candidate = registry.lookup(test.model, test.release.challenger)
    if candidate is None:
        return stop(test, record, "It was deleted in MLflow.")
    if candidate.was_declined:
        return stop(test, record, f"It does not go live: {candidate.answer}.")
    benefit = f"{QUESTION}: {record.verdict.reason}"
    hold = releases.hold(test.model)
    if hold or approval == "manual":
        if not candidate.question:
            ask_a_person(candidate, benefit, hold)
        return False
    publish(test.model, candidate.number, benefit=benefit, who=WHO)
    return True


def end_self_test(test: Running, record: Record) -> bool:
    """End a test of a version against itself. Whether that was done."""
    why = f"{test.release.trial} ends. {record.verdict.reason}"
    if record.verdict.outcome != "undecided":
        why += (
            " Both arms got the same version. So this is chance, which is rare, or an error in how "
            "users are assigned or their reactions counted: look for it before the next test."
        )
    return end_now(test, why)


def stop(test: Running, record: Record, obstacle: str = "") -> bool:
    """End the test, unless somebody was faster; a challenger that did harm does not go live by
    itself any more. Whether it was ended here."""
    assert test.release.challenger is not None
    if record.verdict.outcome == "harm":
        decline(test.model, test.release.challenger, record.verdict.reason)
    why = f"The A/B test of version {test.release.challenger} ends. {record.verdict.reason}"
    return end_now(test, f"{why} {obstacle}".rstrip())


def end_now(test: Running, why: str) -> bool:
    """Let all users get the champion, unless somebody was faster; whether it was done here."""
    has_ended = end_test(test.release, why, WHO)
    if not has_ended:
        get_run_logger().info(TOO_LATE)
    return has_ended


def decline(model: str, number: int, reason: str) -> None:
    """Say that the version must not go live; what MLflow does not take delays no stop."""
    try:
        version = registry.lookup(model, number)
        if version is not None:
            questions.answer(version, f"{DECLINED} by its A/B test: {reason}")
    except registry.RegistryError as error:
        get_run_logger().error(
            f"The test of version {number} ends, but nothing keeps it from going live. Delete "
            f"it in MLflow. {error}"
        )
