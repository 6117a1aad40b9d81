"""Which version may go live, and which may be tested on users: its parity, the gate's decision, the
release log."""

from pathlib import Path

from kreislauf import registry
from kreislauf.evaluation import gate
from kreislauf.registry import artifacts
from kreislauf.registry.runs import NoSuchVersion
from kreislauf.release import crashes, releases, triton

RECORD = "version.json"
"""File beside a version in Triton's repository: the version as MLflow had it."""


class PublishRefused(RuntimeError):
    """The version must not, or could not, go live; what was live before still is."""


class ExperimentRefused(RuntimeError):
    """The test must not be; what was in force before still is."""


def choose_candidate(model: str, version: int | None) -> registry.Version:
    """The version, or else the newest that the gate promoted, and about which no person is asked or
    has said no. Raises PublishRefused when there is none."""
    if version:
        return registered(model, version)
    for judged in registry.versions(model):
        if not judged.decision or judged.question or judged.was_declined:
            continue
        if gate.Decision.model_validate_json(judged.decision).outcome == "promote":
            return judged
    raise PublishRefused(f"No version of {model} was promoted: train and promote one first.")


def registered(model: str, version: int) -> registry.Version:
    """The version as MLflow has it; if MLflow does not answer, as Triton's repository has kept it.
    Raises RegistryError, also for a version that was deleted."""
    try:
        return registry.get(model, version)
    except NoSuchVersion:
        raise
    except registry.RegistryError as error:
        return kept(model, version, error)


def registered_or_kept(model: str, version: int) -> registry.Version:
    """The version as MLflow has it, or, also if it was deleted there, as Triton's repository has
    kept it. Raises RegistryError."""
    try:
        return registry.get(model, version)
    except registry.RegistryError as error:
        return kept(model, version, error)


def kept(model: str, version: int, error: registry.RegistryError) -> registry.Version:
    """The version as Triton's repository has kept it; raises `error` if it has not."""
    record = triton.kept_file(model, version, RECORD)
    if record is None:
        raise error
    return registry.Version.model_validate_json(record)


def onnx_file(version: registry.Version) -> Path:
    """The file of a version as a local one; of one that was deleted in MLflow, Triton's. Raises
    RegistryError when it is not what was registered."""
    if registry.lookup(version.model, version.number) is None:
        content = triton.kept_file(version.model, version.number, "model.onnx")
        artifacts.put_in_cache(version, "model.onnx", content or b"")
    return registry.onnx_file(version)


def choose_question(model: str, version: int, go_live: bool) -> registry.Version:
    """The version about which a person is asked; also one that is live already, if it shall `go
    live`. Raises PublishRefused for any other."""
    candidate = registry.get(model, version)
    if candidate.question or (go_live and releases.champion(model) == version):
        return candidate
    came = candidate.answer or "nobody was asked about it"
    raise PublishRefused(f"{_name(candidate)} does not wait for an answer: {came}.")


def reason_to_publish(
    candidate: registry.Version, live: releases.Release | None, benefit: str = ""
) -> str:
    """Why `candidate` may replace what is live: the `benefit` that an A/B test has proven, if there
    is one, and the gate's words.

    Of versions that the gate did not promote, only an inconclusive one that is in an A/B test may.
    Raises PublishRefused.
    """
    replaced = was_replaced(candidate)
    if replaced:
        raise PublishRefused(replaced)
    if live and live.hold:
        raise PublishRefused(
            f"{candidate.model} is on hold: {live.hold} Look at {_name(candidate)}, then end the "
            "hold with the flow lift and publish again."
        )
    if benefit and not is_tested_on_users(candidate, live):
        raise PublishRefused(f"The A/B test of {_name(candidate)} has ended meanwhile.")
    decision = _decision(candidate, PublishRefused)
    reasons = " ".join(decision.reasons)
    if decision.outcome == "inconclusive" and is_tested_on_users(candidate, live):
        chosen = benefit or "A person chose it in its A/B test."
        reasons = f"{chosen} The gate had not decided: {reasons}"
    elif decision.outcome != "promote":
        raise PublishRefused(
            f"{_name(candidate)} was not promoted but judged {decision.outcome}: {reasons}"
        )
    elif benefit:
        reasons = f"{benefit} The gate had said: {reasons}"
    champion = None
    if live:
        champion = live.champion
    if decision.champion_version != champion:
        rival = "no champion"
        if decision.champion_version:
            rival = f"version {decision.champion_version}"
        raise PublishRefused(
            f"{_name(candidate)} was judged against {rival}, which is not live now: promote it "
            "again."
        )
    return reasons


def is_tested_on_users(candidate: registry.Version, live: releases.Release | None) -> bool:
    """Whether a share of the users gets the candidate in the A/B test that is in force."""
    return live is not None and live.tested_version == candidate.number and live.share > 0


def was_replaced(candidate: registry.Version) -> str:
    """That only a rollback brings `candidate` back; empty if it was never live or still is."""
    champions = [release.champion for release in releases.history(candidate.model)]
    if candidate.number not in champions or candidate.number == champions[-1]:
        return ""
    return (
        f"{_name(candidate)} was live before and was replaced: bring it back with the flow "
        "rollback."
    )


def check_never_crashed(version: registry.Version) -> None:
    """Raises PublishRefused, with the release log's words, for a version that ended Triton."""
    crash = crashes.read(version.model, version.number)
    if crash:
        raise PublishRefused(crash.reason)


def check_challenger(challenger: registry.Version, live: releases.Release) -> None:
    """Raises ExperimentRefused for a version that people must not see."""
    if challenger.number == live.champion:
        return  # A self-test shows nobody anything new.
    decision = _decision(challenger, ExperimentRefused)
    if decision.outcome == "refuse":
        raise ExperimentRefused(
            f"{_name(challenger)} was refused by the gate: {' '.join(decision.reasons)}"
        )


def _decision(version: registry.Version, refusal: type[RuntimeError]) -> gate.Decision:
    """What the gate said of a version whose ONNX file answers as the module did. Raises
    `refusal`."""
    if not version.proven:
        raise refusal(f"{_name(version)} has no passed parity of its ONNX file: train it again.")
    if version.decision is None:
        raise refusal(f"{_name(version)} was never judged: run promote first.")
    return gate.Decision.model_validate_json(version.decision)


def _name(version: registry.Version) -> str:
    return f"{version.model} version {version.number}"
