"""End the hold that a rollback has put on a model: what the gate promotes goes live by itself
again."""

from prefect import flow, get_run_logger
from prefect.runtime import flow_run

from kreislauf.people import Text
from kreislauf.release import permission, releases
from tasks.page import draw_page


@flow
def lift(who: Text, reason: Text, model: str = "session_recommender") -> releases.Release:
    """Write into the release log that the model is not on hold any more. What serves stays.

    To run it again is harmless: a model that is not on hold stays as it is.

    Args:
        who: Name of the person who says so.
        reason: Why, in a sentence.
        model: Name of the model type.

    Returns:
        The entry of the release log that is now in force.

    Raises:
        permission.PublishRefused: nothing of the model is live.
        releases.ReleaseConflict: somebody else published meanwhile.
    """
    live = releases.current(model)
    if live is None:
        raise permission.PublishRefused(
            f"Nothing of {model} is live, so nothing is on hold: run retrain first."
        )
    if not live.hold:
        get_run_logger().info(f"{model} is not on hold.")
        return live
    lifted = releases.append(
        model,
        live.champion,
        f"Not on hold any more: {reason}",
        who,
        after=live,
        challenger=live.challenger,
        share=live.share,
        is_hold_back=live.is_hold_back,
        watermark=live.watermark,
        hold="",
        flow_run=flow_run.get_id(),
    )
    draw_page(model)
    return lifted
