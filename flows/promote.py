"""Judge a challenger: champion and challenger answer the same later hold-out; a paired interval decides."""

import json
from pathlib import Path

import numpy as np
import polars as pl
from prefect import flow, task
from prefect.artifacts import create_markdown_artifact

from models import spec
from tasks import events, gate, lake, registry, releases, scoring, split

EVENTS = {
    "promote": events.MODEL_PROMOTED,
    "refuse": events.MODEL_REFUSED,
    "inconclusive": events.MODEL_INCONCLUSIVE,
}


DECISIONS = "decisions"
"""The lake's table with a row for each."""


@flow
def promote(model: str = "session_recommender", version: int | None = None) -> gate.Decision:
    """Decide whether a version may replace the champion. Changes nothing that serves.

    Args:
        model: Name of the model type.
        version: The challenger; default: the newest version.

    Returns:
        The decision, which is also stored on the version, shown as an artifact and emitted as an event. A version that
        was judged against today's champion before gets the same decision again.

    Raises:
        registry.RegistryError: no such version, or MLflow does not answer.
    """
    challenger = registry.get(model, version) if version else newest(model)
    live = releases.current(model)
    champion = live.champion if live else None
    if challenger.decision:
        before = gate.Decision.model_validate_json(challenger.decision)
        if champion in (before.champion_version, challenger.number):
            return before
    decision = judge(model, challenger.number, champion)
    lake.note(DECISIONS, f"{model}/{challenger.number}/{champion}", as_row(challenger, decision))
    registry.record_decision(challenger, decision)
    create_markdown_artifact(key=f"decision-{model.replace('_', '-')}", markdown=page(challenger, decision))
    events.emit_model_event(
        EVENTS[decision.outcome], model, " ".join(decision.reasons),
        version=challenger.number, champion=champion,
    )  # fmt: skip
    return decision


def newest(model: str) -> registry.Version:
    """The newest version. Raises RegistryError when there is none."""
    found = registry.versions(model)
    if not found:
        raise registry.RegistryError(f"{model} has no version yet: train one first.")
    return found[0]


@task(task_run_name="judge-{model}-{challenger}-against-{champion}")
def judge(model: str, challenger: int, champion: int | None) -> gate.Decision:
    """Let challenger, champion and trivial baseline answer the challenger's hold-out, and decide."""
    kind, version = spec.load(model), registry.get(model, challenger)
    lineage = version.lineage
    whole = lake.rebuild(kind.table, lineage.table_version, lineage.watermark, lineage.digest)
    trained_on = whole.filter(pl.col(kind.table.time) < lineage.holdout)
    rows = split.started(whole, kind.table, lineage.holdout, lineage.watermark)
    examples = kind.examples(rows)
    by = {column.name: column.cast(pl.String).to_numpy() for column in kind.slices(rows, trained_on)}
    holdout = gate.Holdout(examples.digest(), lineage.holdout, examples.groups, by)

    def score(onnx: Path, trained_until: int, number: int | None = None) -> gate.Scores:
        outputs = scoring.answer(onnx, examples.inputs)
        return gate.Scores(
            values=kind.score(examples, outputs),
            holdout=holdout,
            metric=kind.metric,
            trained_until=trained_until,
            onnx=registry.sha256(onnx),
            version=number,
            cost=cost(onnx, examples, kind.coverage(outputs, trained_on)),
            probabilities=kind.probabilities(outputs),
        )

    rival = registry.get(model, champion) if champion else None
    return gate.decide(
        challenger=score(registry.onnx_file(version), lineage.holdout, challenger),
        champion=score(registry.onnx_file(rival), rival.lineage.holdout, champion) if rival else None,
        baseline=score(registry.artifact(version, "baseline"), lineage.holdout),
        policy=kind.policy,
    )


def cost(onnx: Path, examples: spec.Examples, coverage: float | None) -> gate.Cost:
    """What serving a file takes on this machine."""
    if not len(examples):
        return gate.Cost(p95_ms=0.0, megabytes=0.0)
    p95 = float(np.quantile(scoring.latencies(onnx, examples.inputs), 0.95))
    return gate.Cost(p95, onnx.stat().st_size / 1e6, coverage)


def as_row(version: registry.Version, decision: gate.Decision) -> pl.DataFrame:
    """One row for the table of decisions."""
    told = decision.model_dump(mode="json")
    flat: dict = {"model": version.model, "version": version.number, "parent": version.lineage.parent}
    flat |= {"holdout_start": version.lineage.holdout, "holdout_end": version.lineage.watermark}
    flat |= {name: told[name] for name in ("champion_version", "outcome", "metric", "groups", "needed", "holdout")}
    flat |= {f"{who}_score": told[who] for who in ("challenger", "champion", "baseline")}
    for name in ("gain", "over_baseline"):
        flat |= {f"{name}_{part}": (told[name] or {}).get(part) for part in ("mean", "low", "high")}
    flat |= {"reasons": " ".join(decision.reasons), "slices": json.dumps(told["slices"])}
    whole = {"version", "parent", "holdout_start", "holdout_end", "champion_version", "groups", "needed"}
    text = {"model", "outcome", "metric", "holdout", "reasons", "slices"}
    types = {name: pl.Int64 if name in whole else pl.String if name in text else pl.Float64 for name in flat}
    return pl.DataFrame({name: [value] for name, value in flat.items()}, schema=types)


def page(version: registry.Version, decision: gate.Decision) -> str:
    """The decision as Markdown."""
    days = (version.lineage.watermark - version.lineage.holdout) / split.DAY_MS
    rows = [
        ("challenger", f"version {version.number}", decision.challenger),
        (
            "champion",
            f"version {decision.champion_version}" if decision.champion_version else "none",
            decision.champion,
        ),
        ("trivial baseline", "", decision.baseline),
    ]
    table = "\n".join(f"| {who} | {which} | {'' if s is None else f'{s:.4f}'} |" for who, which, s in rows)
    parts = "\n".join(f"| {part.by} | {part.value} | {part.groups} | {part.gain} |" for part in decision.slices)
    slices = f"\n\n| slice | | groups | challenger minus champion |\n|---|---|---|---|\n{parts}" if parts else ""
    return (
        f"# {decision.outcome}: {version.model} version {version.number}\n\n{' '.join(decision.reasons)}\n\n"
        f"| | | {decision.metric} |\n|---|---|---|\n{table}\n\n"
        f"Challenger minus champion: {decision.gain or 'no champion yet'}; minus baseline: {decision.over_baseline}. "
        f"Hold-out: {decision.groups} groups in the last {days:.0f} days before the data's watermark.{slices}"
    )
