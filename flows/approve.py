"""A person's answer to the question whether a promoted version goes live."""

from prefect import flow, get_run_logger

from flows.lift import lift
from flows.publish import publish
from kreislauf.lake import approvals
from kreislauf.people import Text
from kreislauf.registry import questions
from kreislauf.registry.versions import DECLINED
from kreislauf.release import permission, releases, triton
from models import spec
from tasks.page import draw_page


@flow
def approve(
    who: Text,
    version: int,
    go_live: bool = True,
    comment: str = "",
    model: str = "session_recommender",
) -> releases.Release | None:
    """Publish a version that `retrain` has asked about, or leave it unpublished for good.

    To approve ends the hold that a rollback has put on the model. To run it again is harmless: what
    a crash left undone is finished, nothing is published twice.

    Args:
        who: Name of the person who answers.
        version: The version that the question is about.
        go_live: Whether the version goes live.
        comment: Why, for the release log.
        model: Name of the model type.

    Returns:
        The entry of the release log that is now in force; None if the version does not go live.

    Raises:
        permission.PublishRefused: the version does not wait for an answer, or cannot go live any
            more.
        releases.ReleaseConflict: somebody else published meanwhile.
    """
    candidate = permission.choose_question(model, version, go_live)
    signature = who
    if comment:
        signature = f"{who}: {comment}"
    if not go_live:
        approvals.record(model, candidate.number, "declined", signature)
        questions.answer(candidate, f"{DECLINED} by {signature}")
        draw_page(model)
        get_run_logger().info(f"{model} version {candidate.number} does not go live: {signature}.")
        return None
    live = releases.current(model)
    if live and live.hold:
        permission.reason_to_publish(candidate, live.model_copy(update={"hold": ""}))
        permission.check_never_crashed(candidate)
        if spec.load(model).is_served:
            triton.wait_until_live(0)
        lift(who, f"version {candidate.number} was approved. {comment}", model)
    return publish(model, candidate.number, who=signature)
