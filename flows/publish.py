"""Put a promoted version live: load in Triton, ask golden questions, write the release, mirror it in MLflow."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.runtime import flow_run

from models.spec import Tensors
from tasks import events, gate, registry, releases, triton

SCORE_TOLERANCE = 1e-4
"""Triton may run another build of onnxruntime than the one that answered at training time."""


class PublishRefused(RuntimeError):
    """The version must not, or could not, go live; what was live before still is."""


@flow
def publish(
    model: str = "session_recommender", version: int | None = None, rollback: str | None = None, who: str | None = None
) -> releases.Release:
    """Make a promoted version the champion that Triton serves, verified, or leave everything as it was.

    A version that is live already is only checked again: whatever a crash left undone is finished, nothing is
    published twice.

    Args:
        model: Name of the model type.
        version: The version to publish; default: the newest promoted one.
        rollback: Why a version that was live before is to be live again; the flow rollback gives it.
        who: For the release log; default: the name of this run.

    Returns:
        The entry of the release log that is now in force.

    Raises:
        PublishRefused: not promoted, no parity, or Triton did not answer the golden requests as registered.
        releases.ReleaseConflict: somebody else published meanwhile.
    """
    candidate = registry.get(model, version) if version else newest_promoted(model)
    with triton.exclusive(model):
        live = releases.current(model)
        if live and live.champion == candidate.number:
            get_run_logger().info(f"Version {live.champion} is live since release {live.number}; verifying it again.")
            put_in_triton(model, live.versions, candidate.number)
        else:
            reason = rollback or permission(candidate, live)
            live = go_live(candidate, live, reason, who or flow_run.get_name() or "a person, from Python")
            announce(live, events.MODEL_ROLLED_BACK if rollback else events.MODEL_PUBLISHED)
        registry.mirror(model, live.champion, live.challenger, live.previous)
    return live


def announce(release: releases.Release, event: str) -> None:
    """Tell Prefect's automations, and people."""
    facts = {"version": release.champion, "release": release.number}
    events.emit_model_event(event, release.model, release.reason, **facts)
    create_markdown_artifact(key=f"release-{release.model.replace('_', '-')}", markdown=page(release))


def newest_promoted(model: str) -> registry.Version:
    """The newest version that the gate promoted. Raises PublishRefused when there is none."""
    for version in registry.versions(model):
        if version.decision and gate.Decision.model_validate_json(version.decision).outcome == "promote":
            return version
    raise PublishRefused(f"No version of {model} was promoted: train and promote one first.")


def go_live(candidate: registry.Version, live: releases.Release | None, reason: str, who: str) -> releases.Release:
    """Verify `candidate` in Triton, then write the release; on failure Triton serves what it served before."""
    resident = live.versions if live else []
    if live and live.challenger:
        reason += f" The A/B test of version {live.challenger} against version {live.champion} ends."
    with restored(candidate):
        put_in_triton(candidate.model, sorted({*resident, candidate.number}), candidate.number)
        release = releases.append(
            candidate.model, candidate.number, reason, who, after=live, watermark=candidate.lineage.watermark
        )
    triton.serve(candidate.model, release.versions)
    return release


@contextmanager
def restored(candidate: registry.Version) -> Iterator[None]:
    """Undo what was done in Triton for `candidate` when it fails."""
    try:
        yield
    except Exception as error:
        try:
            undo(candidate)
        except triton.TritonError as second:
            error.add_note(f"What Triton served before could not be restored yet; publish again. {second}")
        raise


def permission(candidate: registry.Version, live: releases.Release | None) -> str:
    """Why `candidate` may replace what is live, in the gate's words. Raises PublishRefused."""
    name = f"{candidate.model} version {candidate.number}"
    if candidate.number in {release.champion for release in releases.history(candidate.model)}:
        raise PublishRefused(f"{name} was live before and was replaced: bring it back with the flow rollback.")
    if not candidate.proven:
        raise PublishRefused(f"{name} has no passed parity of its ONNX file: train it again.")
    if candidate.decision is None:
        raise PublishRefused(f"{name} was never judged: run promote first.")
    decision = gate.Decision.model_validate_json(candidate.decision)
    if decision.outcome != "promote":
        raise PublishRefused(f"{name} was not promoted but judged {decision.outcome}: {' '.join(decision.reasons)}")
    if decision.champion_version != (live.champion if live else None):
        against = f"version {decision.champion_version}" if decision.champion_version else "no champion"
        raise PublishRefused(f"{name} was judged against {against}, which is not live now: promote it again.")
    return " ".join(decision.reasons)


@task(task_run_name="load-{model}-{version}")
def put_in_triton(model: str, resident: list[int], version: int) -> None:
    """Make the versions resident and prove that `version` answers the golden requests as registered."""
    golden = json.loads(registry.artifact(registry.get(model, version), "golden").read_text())
    asked, expected = tensors(golden["inputs"]), tensors(golden["outputs"])
    for number in resident:
        triton.add_version(model, number, registry.onnx_file(registry.get(model, number)))
    triton.keep_warm_up(model, asked)
    triton.serve(model, resident)
    differences = compare(triton.ask(model, version, asked), expected)
    if differences:
        raise PublishRefused(f"{model} version {version} in Triton answers otherwise than registered: {differences}")


def undo(candidate: registry.Version) -> None:
    """Make Triton serve what the release log says, and forget the candidate."""
    live = releases.current(candidate.model)
    if not live or candidate.number not in live.versions:
        triton.remove_version(candidate.model, candidate.number)
    if live:
        triton.serve(candidate.model, live.versions)
    else:
        triton.unload(candidate.model)


def tensors(stored: dict[str, dict]) -> Tensors:
    """Tensors from their JSON form."""
    return {name: np.array(tensor["values"], dtype=tensor["dtype"]) for name, tensor in stored.items()}


def compare(found: Tensors, expected: Tensors) -> str:
    """What differs, in words; empty when integers and text are equal and floats within SCORE_TOLERANCE."""
    for name, right in expected.items():
        got = found.get(name)
        if got is None or got.shape != right.shape:
            return f"output {name} has shape {None if got is None else got.shape}, not {right.shape}"
        floating = np.issubdtype(right.dtype, np.floating)
        same = np.isclose(got, right, rtol=SCORE_TOLERANCE, atol=SCORE_TOLERANCE) if floating else got == right
        if not same.all():
            return f"output {name} differs in {int((~same).sum())} of {same.size} values"
    return ""


def page(release: releases.Release) -> str:
    """The release as Markdown."""
    return (
        f"# Release {release.number}: {release.model} version {release.champion} is live\n\n"
        f"{release.reason}\n\nBefore: {release.previous or 'nothing'}. By: {release.who}."
    )
