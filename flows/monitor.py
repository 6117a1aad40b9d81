"""Watch the live model: has the data drifted, have its answers become worse? If so, say so with an event."""

import tempfile
from pathlib import Path

import numpy as np
import polars as pl
from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from pydantic import BaseModel, ConfigDict, Field

from models import spec
from tasks import drift, events, gate, lake, registry, releases, scoring, split

MAX_EXAMPLES = 20_000


class Finding(BaseModel):
    """What the newest window says about the champion."""

    model_config = ConfigDict(frozen=True)

    model: str
    version: int
    groups: int = Field(description="In the window.")
    reason: str
    drifted: list[str] = []
    decayed: bool = False
    realised: gate.Interval | None = Field(None, description="Metric of the live version in the window.")
    reference: gate.Interval | None = Field(None, description="Its metric on its own hold-out.")


@flow
def monitor(model: str = "session_recommender", window_days: float = 7.0) -> Finding:
    """Compare the newest window with what the champion knew, and emit an event if it drifted or decayed.

    Args:
        model: Name of the model type.
        window_days: Length of the window before the data's watermark, at most back to the champion's own hold-out.

    Returns:
        What was found. Evidently's report is an artifact of the champion's MLflow run and, in short, of this run.

    Raises:
        RuntimeError: nothing is live yet.
    """
    live = releases.current(model)
    if live is None:
        raise RuntimeError(f"Nothing of {model} is live, so nothing can be watched: run retrain first.")
    finding = look(model, live.champion, window_days)
    get_run_logger().info(finding.reason)
    watched = {"version": finding.version, "groups": finding.groups}
    if finding.drifted:
        events.emit_model_event(events.DRIFT_DETECTED, model, finding.reason, columns=finding.drifted, **watched)
    if finding.decayed:
        events.emit_model_event(events.DECAY_DETECTED, model, finding.reason, **watched)
    return finding


@task(task_run_name="look-at-{model}-{version}")
def look(model: str, version: int, window_days: float) -> Finding:
    """Measure drift and decay of one version over the newest window."""
    kind, champion = spec.load(model), registry.get(model, version)
    lineage, table = champion.lineage, kind.table
    rows = lake.read(table)
    end = int(rows[table.time].max())  # type: ignore[arg-type]
    start = max(end - int(window_days * split.DAY_MS), lineage.watermark) + 1
    window = split.started(rows, table, start, end)
    groups = window[table.group].n_unique()
    if groups < kind.policy.min_groups:
        reason = f"Not enough data: {groups} groups since version {version} was judged."
        return Finding(model=model, version=version, groups=groups, reason=reason)
    known = split.started(rows, table, lineage.holdout, lineage.watermark)
    learnt = rows.filter(pl.col(table.time) < lineage.holdout)
    moved = compare_data(kind, champion, window, known, learnt)
    reference = reference_of(champion)
    realised = quality(kind, champion, window)
    lost = loss(realised, reference, kind.policy)
    finding = Finding(
        model=model, version=version, groups=groups, drifted=moved.drifted, decayed=bool(lost),
        realised=realised, reference=reference, reason=f"{lost or 'No decay.'} {moved.sentence()}",
    )  # fmt: skip
    create_markdown_artifact(key=f"monitor-{model.replace('_', '-')}", markdown=page(kind, finding, moved))
    return finding


def compare_data(
    kind: spec.ModelSpec, champion: registry.Version, window: pl.DataFrame, known: pl.DataFrame, learnt: pl.DataFrame
) -> drift.Drift:
    """Drift of the window against the champion's hold-out, the newest data when it was trained; report to MLflow."""
    with tempfile.TemporaryDirectory() as folder:
        watermark = int(window[kind.table.time].max())  # type: ignore[arg-type]
        path = Path(folder) / f"drift-{watermark}.html"
        moved = drift.compare(kind.monitored(window, learnt), kind.monitored(known, learnt), path)
        registry.attach(champion, "monitor", moved.report)
    return moved


def reference_of(champion: registry.Version) -> gate.Interval:
    """The champion's score on its hold-out. Raises RuntimeError when the gate never gave it one."""
    decision = gate.Decision.model_validate_json(champion.decision) if champion.decision else None
    if decision is None or decision.reference is None:
        name = f"{champion.model} version {champion.number}"
        raise RuntimeError(f"{name} is live, but no gate ever scored it, so there is no reference: run promote for it.")
    return decision.reference


def quality(kind: spec.ModelSpec, champion: registry.Version, window: pl.DataFrame) -> gate.Interval:
    """The champion's metric on what really came next, from a bounded sample of whole groups."""
    examples = kind.examples(window)
    if len(examples) > MAX_EXAMPLES:
        groups = np.unique(examples.groups)
        kept = np.random.default_rng(0).permutation(groups)[: int(len(groups) * MAX_EXAMPLES / len(examples))]
        examples = examples.take(np.isin(examples.groups, kept))
    values = kind.score(examples, scoring.answer(registry.onnx_file(champion), examples.inputs))
    scores = gate.Scores(values, examples.groups, examples.digest(), champion.lineage.holdout)
    return gate.difference(scores, None, kind.policy.confidence)


def loss(realised: gate.Interval, reference: gate.Interval, policy: spec.Policy) -> str:
    """How much worse, in a sentence, when the loss is larger than chance and than `policy.decay`; else empty.

    Both intervals come from other groups, so the interval of the difference has the root of the squared half-widths.
    """
    lost = reference.mean - realised.mean
    margin = float(np.hypot(realised.high - realised.low, reference.high - reference.low)) / 2
    if lost <= max(margin, policy.decay):
        return ""
    return f"Decay: {realised.mean:.4f} now, {reference.mean:.4f} when it was judged (-{lost:.4f} ± {margin:.4f})."


def page(kind: spec.ModelSpec, finding: Finding, moved: drift.Drift) -> str:
    """The finding as Markdown."""
    columns = "\n".join(f"| {name} | {value:.3f} |" for name, value in moved.values.items())
    return (
        f"# {finding.model} version {finding.version}\n\n{finding.reason}\n\n"
        f"{kind.metric}: {finding.realised} now, {finding.reference} when it was judged, {finding.groups} groups.\n\n"
        f"| column | PSI (drifted from {drift.THRESHOLD}) |\n|---|---|\n{columns}\n\n"
        f"Evidently's report: MLflow, run of version {finding.version}, folder `monitor`."
    )
