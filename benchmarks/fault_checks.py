"""What must be true of a loop whatever has happened to it, for `faults.py`."""

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise

from prefect.client.schemas.filters import FlowRunFilter

from benchmarks.crowd import Response
from benchmarks.fault_loop import MODEL, OPEN, Loop, type_of
from kreislauf import lake, registry
from kreislauf.evaluation import gate
from kreislauf.release import golden, releases, triton
from models import spec
from tasks.publish import GOLDEN
from tasks.recover import successor_key

ENDS = ("COMPLETED", "CANCELLED", "CANCELLING")
"""Types of state after which a run must not run again."""
FENCE_SECONDS = 2.0
"""Time in which a process that was overtaken may still notice so."""
SLOT_SECONDS = 60.0
"""Time in which a slot that was just freed may still be counted."""
GRACE_SECONDS = 2.0
"""Time after an outage in which a request may still fail."""


def revived(histories: Mapping[str, Sequence[str]]) -> list[str]:
    """Runs that ran again after they had ended. `histories` are types of state, oldest first."""
    violations = []
    for name, types in histories.items():
        ends = [number for number, kind in enumerate(types) if kind in ENDS]
        if ends and {"PENDING", "RUNNING"} & {*types[ends[0] :]}:
            violations.append(f"{name} ran again after its end: {', '.join(types)}")
    return violations


def overlaps(notes: Iterable[Mapping]) -> list[str]:
    """Trainings on which an earlier process worked after a later one had begun. `notes` have time
    (s), process and training."""
    violations = []
    newest: dict[str, list[tuple[float, int]]] = {}
    for entry in sorted(notes, key=lambda entry: entry["time"]):
        starts = newest.setdefault(entry["training"], [])
        if entry["process"] not in [process for _, process in starts]:
            starts.append((entry["time"], entry["process"]))
        began, process = starts[-1]
        if entry["process"] != process and entry["time"] - began > FENCE_SECONDS:
            violations.append(
                f"process {entry['process']} works on training {entry['training'][:12]}, which "
                f"process {process} has taken {entry['time'] - began:.1f} s before"
            )
    return violations[:1]


def log_errors(history: Sequence[releases.Release], refused: Iterable[int]) -> list[str]:
    """What is wrong with a release log. `refused` are versions that the gate has not promoted."""
    violations = []
    if [release.number for release in history] != [*range(1, len(history) + 1)]:
        violations.append("the release log has gaps")
    champions = [release.champion for release in history]
    if len(champions) != len({*champions}):
        violations.append(f"a version was published twice: {champions}")
    for earlier, later in pairwise(history):
        if (later.watermark or 0) < (earlier.watermark or 0):
            violations.append(f"release {later.number} has learnt from less than the one before")
    for version in {*champions} & {*refused}:
        violations.append(f"version {version} is in the release log and was not promoted")
    return violations


def failed_requests(
    responses: Iterable[Response], outages: Iterable[tuple[float, float]], versions: Iterable[int]
) -> list[str]:
    """Requests that nobody answered although the gateway could, and answers of versions that were
    never released."""
    violations = []
    for response in responses:
        is_excused = any(
            response.finished >= began and response.began <= ended + GRACE_SECONDS
            for began, ended in outages
        )
        if response.status != 200 and not is_excused:
            violations.append(f"a request got {response.status}: {str(response.body)[:200]}")
        elif response.status == 200 and response.body["version"] not in versions:
            violations.append(f"version {response.body['version']} answered, never released")
    return violations


def leaks(slots: Mapping[str, tuple[int, int]]) -> list[str]:
    """Deployments by name with slots in use, and runs that run, which differ."""
    return [
        f"{name}: {used} slots are in use, and {running} runs run"
        for name, (used, running) in slots.items()
        if used != running
    ]


def violations(loop: Loop, responses: Sequence[Response]) -> list[str]:
    """All that is wrong with a loop that has closed."""
    history = releases.history(MODEL)
    versions = registry.versions(MODEL)
    refused = [version.number for version in versions if outcome(version) != "promote"]
    keys = [version.lineage.key for version in versions]
    problems = revived(histories(loop)) + cancelled_and_taken_up(loop)
    notes = (loop.home / "training" / "processes.jsonl").read_text().splitlines()
    problems += overlaps(map(json.loads, notes))
    problems += log_errors(history, refused)
    problems += wrong_answers(history[-1])
    problems += failed_requests(responses, loop.outages, [release.champion for release in history])
    if len(keys) != len({*keys}):
        problems.append("two versions were registered for the same training")
    if any(version.question for version in versions):
        problems.append("a person is still asked about a version although a newer one is live")
    height = lake.read(spec.load(MODEL).table).height
    if height != loop.rows:
        problems.append(f"the lake has {height} rows of {loop.rows} that were sent")
    return problems + lasting(lambda: leaks(slots(loop)))


def outcome(version: registry.Version) -> str:
    """What the gate has said of a version; empty if it was not asked."""
    if not version.decision:
        return ""
    return gate.Decision.model_validate_json(version.decision).outcome


def histories(loop: Loop) -> dict[str, list[str]]:
    """Types of state of the newest retrainings, by name."""
    return {
        run.name: [state.type.value for state in loop.history(run)] for run in loop.retrainings()
    }


def cancelled_and_taken_up(loop: Loop) -> list[str]:
    """Runs that a person has cancelled and that another run has taken up."""
    keys = {run.idempotency_key for run in loop.retrainings()}
    return [
        f"{run.name} was cancelled and was taken up"
        for run in loop.retrainings()
        if type_of(run) == "CANCELLED" and successor_key(run) in keys
    ]


def wrong_answers(live: releases.Release) -> list[str]:
    """What Triton answers otherwise than the live version was registered with, and MLflow's alias
    if it says another version."""
    questions = triton.kept_file(MODEL, live.champion, GOLDEN)
    if questions is None:
        return [f"Triton's repository has no golden requests of version {live.champion}"]
    requests, expected = golden.read_golden(questions)
    differences = golden.compare(triton.ask(MODEL, live.champion, requests), expected)
    return [f"version {live.champion}: {differences}"] if differences else []


def slots(loop: Loop) -> dict[str, tuple[int, int]]:
    """Slots in use and runs that hold one, by deployment."""
    counts = {}
    for deployment in loop.client.read_deployments(limit=100):
        limit = deployment.global_concurrency_limit
        criteria = {
            "deployment_id": {"any_": [deployment.id]},
            "state": {"type": {"any_": [kind for kind in OPEN if kind != "SCHEDULED"]}},
        }
        holders = loop.client.read_flow_runs(flow_run_filter=FlowRunFilter.model_validate(criteria))
        if limit:
            counts[deployment.name] = (limit.active_slots, len(holders))
    return counts


def lasting(check: Callable[[], list[str]]) -> list[str]:
    """What a check still says after `SLOT_SECONDS`."""
    end = time.monotonic() + SLOT_SECONDS
    while True:
        problems = check()
        if not problems or time.monotonic() > end:
            return problems
        time.sleep(1)
