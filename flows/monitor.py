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

Quality = tuple[gate.Interval, gate.Interval]
"""The champion's metric, and its lead over a trivial baseline that learnt from everything before."""


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
    lead: gate.Interval | None = Field(None, description="Over a trivial baseline fitted on all before the window.")
    reference_lead: gate.Interval | None = Field(None, description="Over the baseline of its own hold-out.")


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
    then = judged(champion)
    now = quality(kind, champion, window, rows.filter(pl.col(table.time) < start))
    lost = loss(kind.metric, now, then, kind.policy)
    finding = Finding(
        model=model, version=version, groups=groups, drifted=moved.drifted, decayed=bool(lost),
        realised=now[0], reference=then[0], lead=now[1], reference_lead=then[1],
        reason=f"{lost or 'No decay.'} {moved.sentence()}",
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


def judged(champion: registry.Version) -> Quality:
    """What the gate measured. Raises RuntimeError when it never scored the champion."""
    decision = gate.Decision.model_validate_json(champion.decision) if champion.decision else None
    if decision is None or decision.reference is None or decision.over_baseline is None:
        name = f"{champion.model} version {champion.number}"
        raise RuntimeError(f"{name} is live, but no gate ever scored it, so there is no reference: run promote for it.")
    return decision.reference, decision.over_baseline


def quality(kind: spec.ModelSpec, champion: registry.Version, window: pl.DataFrame, before: pl.DataFrame) -> Quality:
    """The same of what really came next, with a baseline fitted on the rows `before`, from a bounded sample of whole
    groups."""
    examples = kind.examples(window)
    if len(examples) > MAX_EXAMPLES:
        groups = np.unique(examples.groups)
        kept = np.random.default_rng(0).permutation(groups)[: int(len(groups) * MAX_EXAMPLES / len(examples))]
        examples = examples.take(np.isin(examples.groups, kept))

    live = kind.score(examples, scoring.answer(registry.onnx_file(champion), examples.inputs))
    lead_of_each = live - scoring.baseline_scores(kind, before, examples)
    metric, lead = gate.intervals([live, lead_of_each], examples.groups, kind.policy.confidence)
    return metric, lead


def loss(metric: str, now: Quality, then: Quality, policy: spec.Policy) -> str:
    """How much worse, in a sentence, when the loss is larger than chance and than `policy.decay`; else empty.

    The lead falls, too, where the metric hides it: in an easier season, or when the reference itself is low because the
    champion was judged just after a change.
    """
    found = []
    for what, one, other in zip((metric, "its lead over a trivial baseline"), now, then, strict=True):
        lost, margin = other.mean - one.mean, _margin(one, other)
        if lost > max(margin, policy.decay):
            found.append(f"{what} is {one.mean:.4f} and was {other.mean:.4f} (-{lost:.4f} ± {margin:.4f})")
    return f"Decay: {' and '.join(found)}." if found else ""


def _margin(now: gate.Interval, then: gate.Interval) -> float:
    """Half-width of the interval of a difference: both come from other groups, so their squares add up."""
    return float(np.hypot(now.high - now.low, then.high - then.low)) / 2


def page(kind: spec.ModelSpec, finding: Finding, moved: drift.Drift) -> str:
    """The finding as Markdown."""
    columns = "\n".join(f"| {name} | {value:.3f} |" for name, value in moved.values.items())
    return (
        f"# {finding.model} version {finding.version}\n\n{finding.reason}\n\n"
        f"{kind.metric}: {finding.realised} now, {finding.reference} when it was judged, {finding.groups} groups. "
        f"Lead over a trivial baseline fitted anew: {finding.lead} now, {finding.reference_lead} then.\n\n"
        f"| column | PSI (drifted from {drift.THRESHOLD}) |\n|---|---|\n{columns}\n\n"
        f"Evidently's report: MLflow, run of version {finding.version}, folder `monitor`."
    )
