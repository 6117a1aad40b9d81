"""Put a promoted version live: load in Triton, ask golden questions, write the release, mirror it
in MLflow."""

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.runtime import flow_run

from kreislauf import events, registry
from kreislauf.pages import release as release_page
from kreislauf.registry import questions
from kreislauf.release import permission, publisher_lock, releases
from kreislauf.settings import settings
from models import spec
from tasks.page import draw_page
from tasks.publish import hand_over, missing, put_in_service, restored, serve


@flow
def publish(
    model: str = "session_recommender",
    version: int | None = None,
    rollback: str | None = None,
    benefit: str = "",
    who: str | None = None,
    live_version: int | None = None,
) -> releases.Release:
    """Make a promoted version the champion that Triton serves, verified, or leave everything as it
    was. Of a model type that is only asked in batches, the champion is what `score` asks.

    With the setting `hold_back` a share of the users keeps the version before for a week, or gets
    no model, unless it is a rollback. So the flow look sees what the release does.

    A version that is live already is only checked again: whatever a crash left undone is finished,
    nothing is published twice.

    Args:
        model: Name of the model type.
        version: The version to publish; default: the newest promoted one.
        rollback: Why a version that was live before is to be live again; the flow rollback gives
            it.
        benefit: What the A/B test of the version has proven; the flow look gives it.
        who: Name for the release log; default: the name of this run.
        live_version: The version that a rollback shall replace, and no other.

    Returns:
        The entry of the release log that is now in force.

    Raises:
        permission.PublishRefused: not promoted, no parity, on hold after a rollback, Triton did not
            answer the golden requests as registered, or the version ended Triton, now or earlier.
        releases.ReleaseConflict: somebody else published meanwhile.
    """
    candidate = permission.choose_candidate(model, version)
    with publisher_lock.exclusive(model):
        live = releases.current(model)
        if live and live.champion == candidate.number:
            verify_again(live)
        else:
            check_live(live, live_version)
            event = events.MODEL_PUBLISHED
            hold = None
            if rollback and live:
                event = events.MODEL_ROLLED_BACK
                hold = f"version {live.champion} was rolled back: {rollback.rstrip('.')}."
            reason = rollback or permission.reason_to_publish(candidate, live, benefit)
            who = who or flow_run.get_name() or "a person, from Python"
            live = go_live(candidate, live, reason, who, hold)
            announce(live, event)
        mirror(live)
        if candidate.question:
            questions.answer(candidate, f"approved by {live.who}")
    draw_page(model)
    return live


def verify_again(live: releases.Release) -> None:
    """Prove that Triton answers as registered for the version that is live, whatever a crash left
    undone."""
    get_run_logger().info(
        f"Version {live.champion} is live since release {live.number}; verifying it again."
    )
    absent = missing(live.model, live.versions)
    resident = [number for number in live.versions if number not in absent]
    hand_over(live.model, resident)
    put_in_service(live.model, resident, live.champion)
    serve(live.model, resident)


def check_live(live: releases.Release | None, live_version: int | None) -> None:
    """Raises ReleaseConflict if another version is live than the one that was to be replaced."""
    if live and live_version and live.champion != live_version:
        raise releases.ReleaseConflict(
            f"{live.model} version {live_version} is not live any more, but version "
            f"{live.champion}. Nothing was changed."
        )


def mirror(live: releases.Release) -> None:
    """Make MLflow's aliases say what the release says; later, if MLflow does not answer."""
    try:
        registry.mirror(live.model, live.champion, live.tested_version, live.previous)
    except registry.RegistryError as error:
        get_run_logger().warning(
            f"Release {live.number} is in force. MLflow's aliases follow with the next retraining. "
            f"{error}"
        )


def go_live(
    candidate: registry.Version,
    live: releases.Release | None,
    reason: str,
    who: str,
    hold: str | None,
) -> releases.Release:
    """Verify `candidate` in Triton, then write the release; on failure Triton serves what it served
    before."""
    resident = {candidate.number}
    absent: list[int] = []
    if live:
        absent = missing(candidate.model, live.versions)
        resident.update(number for number in live.versions if number not in absent)
        if live.trial:
            reason += f" {live.trial} ends."
    kept = None
    share = 0.0
    is_rollback = hold is not None
    if not is_rollback:
        kept, share = hold_back(candidate.model, live, absent)
    if kept is not None:
        days = releases.HOLD_BACK_DAYS
        reason += f" {share:.1%} of the users get {releases.name(kept)} for {days} days."
    with restored(candidate):
        hand_over(candidate.model, sorted(resident))
        put_in_service(candidate.model, sorted(resident), candidate.number)
        release = releases.append(
            candidate.model,
            candidate.number,
            reason,
            who,
            after=live,
            watermark=candidate.lineage.watermark,
            challenger=kept,
            share=share,
            is_hold_back=kept is not None,
            hold=hold,
            missing=absent,
            flow_run=flow_run.get_id(),
        )
    serve(candidate.model, release.versions)
    return release


def hold_back(
    model: str, live: releases.Release | None, absent: list[int]
) -> tuple[int | None, float]:
    """The version that some users keep after a release, and their share, 0 to 0.5. Before the first
    release it is no model; None without the setting, without users, or if nobody has the version
    any more."""
    share = settings().hold_back
    if not share or not spec.load(model).is_served:
        return None, 0.0
    if live is None:
        return releases.NO_MODEL, share
    if live.champion in absent:
        return None, 0.0
    return live.champion, share


def announce(release: releases.Release, event: str) -> None:
    """Tell Prefect's automations, and people."""
    facts = {"version": release.champion, "release": release.number}
    events.emit_model_event(event, release.model, release.reason, **facts)
    create_markdown_artifact(
        key=f"release-{release.model.replace('_', '-')}",
        markdown=release_page.page(release),
        description="What went live, and how it is rolled back",
    )
