"""Back to a version that was live before: verified in Triton, one more entry of the release log,
who and why in it."""

import itertools

from prefect import flow, get_run_logger
from prefect.runtime import flow_run

from flows.publish import publish
from kreislauf import registry
from kreislauf.release import permission, releases, triton


class NothingToRollBackTo(ValueError):
    """There is no such version in the release log; what is live stays."""


@flow
def rollback(
    model: str = "session_recommender",
    version: int | None = None,
    reason: str = "asked for by a person",
    who: str | None = None,
    automatic: bool = False,
    live_version: int | None = None,
) -> releases.Release:
    """Make an earlier champion live again, after it answered its golden requests in Triton as
    registered.

    What is live now becomes `previous`, so a second rollback undoes the first. The version that was
    rolled back is not published again by itself: only a rollback brings it back. The model is on
    hold from then on: a person is asked before another version goes live, until somebody ends the
    hold with the flow lift. MLflow is not needed for a version whose files are in Triton's
    repository, as those of `previous` are. Safe to kill and to run again: a version that is live
    already is only verified.

    Args:
        model: Name of the model type.
        version: An earlier champion; default: the release log's `previous`, or an older one if that
            was deleted in MLflow.
        reason: Why, in a sentence, for the release log.
        who: Name for the release log; default: the name of this run.
        automatic: An alert asks, no person: a version that itself came back by a rollback stays, so
            that alerts do not swing to and fro.
        live_version: The version that is rolled back; if another one is live by then, nothing is
            done. Default: whichever is.

    Returns:
        The entry of the release log that is now in force.

    Raises:
        NothingToRollBackTo: nothing was live before, or that version never was, or it was rolled
            back already.
        permission.PublishRefused: Triton did not answer the golden requests as registered, or the
            version ended it, now or earlier; nothing was changed.
        releases.ReleaseConflict: somebody else published meanwhile.
    """
    target = choose_target(model, version, automatic)
    get_run_logger().info(f"Rolling {model} back to version {target}: {reason}")
    who = who or flow_run.get_name() or "a person, from Python"
    return publish(model, target, rollback=reason, who=who, live_version=live_version)


def newest_before(history: list[releases.Release]) -> int | None:
    """The release log's `previous`; if somebody has deleted that version, the newest champion
    before it that was not rolled back itself. None without."""
    rolled_back = {
        earlier.champion
        for number, (earlier, later) in enumerate(itertools.pairwise(history))
        if later.champion in {release.champion for release in history[:number]}
        and later.champion != earlier.champion
    }
    earlier = [release.champion for release in reversed(history)]
    candidates = [history[-1].previous, *(n for n in earlier if n not in rolled_back)]
    for number in candidates:
        if number in (None, history[-1].champion):
            continue
        if is_available(history[-1].model, number):
            return number
        get_run_logger().warning(f"Version {number} was deleted in MLflow: an older one is sought.")
    return None


def is_available(model: str, version: int) -> bool:
    """Whether the version was not deleted; without MLflow, whether Triton's repository has it."""
    try:
        return registry.lookup(model, version) is not None
    except registry.RegistryError:
        return triton.kept_file(model, version, permission.RECORD) is not None


def choose_target(model: str, version: int | None, automatic: bool = False) -> int:
    """The version to go back to. Raises NothingToRollBackTo."""
    history = releases.history(model)
    if not history:
        raise NothingToRollBackTo(f"Nothing of {model} was ever live: run retrain first.")
    live = history[-1].champion
    replaced = {
        earlier.champion
        for earlier, later in itertools.pairwise(history)
        if earlier.champion != later.champion
    }
    if automatic and live in replaced:
        raise NothingToRollBackTo(
            f"{model} version {live} was brought back already: an alert alone does not undo that."
        )
    target = version or newest_before(history)
    champions = sorted({release.champion for release in history})
    if target is None:
        raise NothingToRollBackTo(
            f"{model} version {live} is the first that was live, or those before were deleted: "
            "there is none to go back to."
        )
    if target not in champions:
        raise NothingToRollBackTo(
            f"{model} version {target} was never live, so it cannot be rolled back to. Versions "
            f"that were: {', '.join(map(str, champions))}. To make a new version live, promote and "
            "publish it."
        )
    return target
