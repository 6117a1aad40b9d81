"""Watch the clicks on a new release, and roll it back if they are clearly fewer than before."""

from prefect import flow, get_run_logger
from pydantic import NonNegativeFloat

from flows.rollback import NothingToRollBackTo, is_available, rollback
from kreislauf.clock import MINUTE_MS
from kreislauf.monitoring import release_clicks
from kreislauf.monitoring.release_clicks import Comparison
from kreislauf.release import permission, releases
from models import spec


@flow
def watch(maturity_minutes: NonNegativeFloat = 60) -> list[Comparison]:
    """Compare the clicks per answer of each live release with those of the version before it, and
    roll it back if it is clearly worse.

    It reads what `collect` has loaded, so it needs no Prometheus. A release is rolled back once: a
    version that came back by a rollback stays, whatever its clicks, and the model is on hold. To
    run it again is harmless.

    Args:
        maturity_minutes: Age at which an answer counts. People may still click on a younger one,
            and its feedback may not be loaded yet.

    Returns:
        What the clicks say of each release that has replaced another version.

    Raises:
        permission.PublishRefused: The version before does not answer its golden requests, or
            cannot be loaded. What is live stays; the next run tries again.
        LakeError: The tables of exposures or feedback cannot be read.
    """
    comparisons = []
    failures = []
    for model in spec.names():
        history = releases.history(model)
        previous = replaced_version(history)
        if previous is None:
            continue
        live = history[-1]
        maturity = int(maturity_minutes * MINUTE_MS)
        comparison = release_clicks.compare(model, live.champion, previous, maturity)
        try:
            comparisons.append(go_back_if_worse(comparison, live))
        except permission.PublishRefused as error:
            get_run_logger().error(f"{model} was not rolled back. {error}")
            failures.append(error)
    if failures:
        raise failures[0]
    return comparisons


def replaced_version(history: list[releases.Release]) -> int | None:
    """The champion that the live one has replaced; None if there is none, or if the live one was
    live before: it came back by a rollback."""
    champions = [history[position].champion for position in releases.changes(history)]
    if len(champions) < 2 or champions[-1] in champions[:-1]:
        return None
    return champions[-2]


def go_back_if_worse(comparison: Comparison, live: releases.Release) -> Comparison:
    """Roll a worse release back, if it is still the `live` one and the version before is there; the
    comparison with what came of it."""
    logger = get_run_logger()
    model = comparison.model
    logger.info(f"{model}: {comparison.reason}")
    if not comparison.worse:
        return comparison
    obstacle = ""
    if releases.current(model) != live:
        obstacle = "It was not rolled back: another release came meanwhile."
    elif not is_available(model, comparison.previous):
        obstacle = (
            f"It was not rolled back: version {comparison.previous} was deleted. The flow rollback "
            "goes to an older one."
        )
    if obstacle:
        logger.warning(f"{model}: {obstacle}")
        return comparison.model_copy(update={"reason": f"{comparison.reason} {obstacle}"})
    try:
        rollback(
            model,
            version=comparison.previous,
            reason=comparison.reason,
            who="the flow watch",
            automatic=True,
            live_version=live.champion,
        )
    except (releases.ReleaseConflict, NothingToRollBackTo) as error:
        logger.warning(f"{model}: {error}")
        return comparison.model_copy(update={"reason": f"{comparison.reason} {error}"})
    return comparison.model_copy(update={"rolled_back": True})
