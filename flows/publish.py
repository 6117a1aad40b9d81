"""Put a promoted version live: load in Triton, ask golden questions, write the release, mirror it
in MLflow."""

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.runtime import flow_run

from kreislauf import events, registry
from kreislauf.evaluation import gate
from kreislauf.release import releases, triton
from tasks.publish import PublishRefused, put_in_triton, restored


@flow
def publish(
    model: str = "session_recommender",
    version: int | None = None,
    rollback: str | None = None,
    who: str | None = None,
) -> releases.Release:
    """Make a promoted version the champion that Triton serves, verified, or leave everything as it
    was.

    A version that is live already is only checked again: whatever a crash left undone is finished,
    nothing is published twice.

    Args: model: Name of the model type. version: The version to publish; default: the newest
        promoted one. rollback: Why a version that was live before is to be live again; the flow
        rollback gives it. who: For the release log; default: the name of this run.

    Returns:
        The entry of the release log that is now in force.

    Raises: PublishRefused: not promoted, no parity, or Triton did not answer the golden requests as
        registered. releases.ReleaseConflict: somebody else published meanwhile.
    """
    candidate = registry.get(model, version) if version else newest_promoted(model)
    with triton.exclusive(model):
        live = releases.current(model)
        if live and live.champion == candidate.number:
            get_run_logger().info(
                f"Version {live.champion} is live since release {live.number}; verifying it again."
            )
            put_in_triton(model, live.versions, candidate.number)
        else:
            reason = rollback or permission(candidate, live)
            live = go_live(
                candidate, live, reason, who or flow_run.get_name() or "a person, from Python"
            )
            announce(live, events.MODEL_ROLLED_BACK if rollback else events.MODEL_PUBLISHED)
        registry.mirror(model, live.champion, live.challenger, live.previous)
    return live


def announce(release: releases.Release, event: str) -> None:
    """Tell Prefect's automations, and people."""
    facts = {"version": release.champion, "release": release.number}
    events.emit_model_event(event, release.model, release.reason, **facts)
    create_markdown_artifact(
        key=f"release-{release.model.replace('_', '-')}", markdown=page(release)
    )


def newest_promoted(model: str) -> registry.Version:
    """The newest version that the gate promoted. Raises PublishRefused when there is none."""
    for version in registry.versions(model):
        if (
            version.decision
            and gate.Decision.model_validate_json(version.decision).outcome == "promote"
        ):
            return version
    raise PublishRefused(f"No version of {model} was promoted: train and promote one first.")


def go_live(
    candidate: registry.Version, live: releases.Release | None, reason: str, who: str
) -> releases.Release:
    """Verify `candidate` in Triton, then write the release; on failure Triton serves what it served
    before."""
    resident = live.versions if live else []
    if live and live.challenger:
        reason += (
            f" The A/B test of version {live.challenger} against version {live.champion} ends."
        )
    with restored(candidate):
        put_in_triton(candidate.model, sorted({*resident, candidate.number}), candidate.number)
        release = releases.append(
            candidate.model,
            candidate.number,
            reason,
            who,
            after=live,
            watermark=candidate.lineage.watermark,
        )
    triton.serve(candidate.model, release.versions)
    return release


def permission(candidate: registry.Version, live: releases.Release | None) -> str:
    """Why `candidate` may replace what is live, in the gate's words. Raises PublishRefused."""
    name = f"{candidate.model} version {candidate.number}"
    if candidate.number in {release.champion for release in releases.history(candidate.model)}:
        raise PublishRefused(
            f"{name} was live before and was replaced: bring it back with the flow rollback."
        )
    if not candidate.proven:
        raise PublishRefused(f"{name} has no passed parity of its ONNX file: train it again.")
    if candidate.decision is None:
        raise PublishRefused(f"{name} was never judged: run promote first.")
    decision = gate.Decision.model_validate_json(candidate.decision)
    if decision.outcome != "promote":
        raise PublishRefused(
            f"{name} was not promoted but judged {decision.outcome}: {' '.join(decision.reasons)}"
        )
    if decision.champion_version != (live.champion if live else None):
        against = (
            f"version {decision.champion_version}" if decision.champion_version else "no champion"
        )
        raise PublishRefused(
            f"{name} was judged against {against}, which is not live now: promote it again."
        )
    return " ".join(decision.reasons)


def page(release: releases.Release) -> str:
    """The release as Markdown."""
    return (
        f"# Release {release.number}: {release.model} version {release.champion} is live\n\n"
        f"{release.reason}\n\nBefore: {release.previous or 'nothing'}. By: {release.who}."
    )
