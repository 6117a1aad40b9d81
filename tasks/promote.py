"""Tasks of promote: judge a challenger, and describe it."""

import json
import tempfile
from pathlib import Path

import polars as pl
from prefect import task
from prefect.runtime import flow_run

from kreislauf import lake, registry
from kreislauf.clock import DAY_MS
from kreislauf.evaluation import gate, scoring, split
from kreislauf.evaluation.decision import DECISIONS
from kreislauf.lake import journal
from kreislauf.monitoring import drift, feedback
from kreislauf.pages import markdown
from kreislauf.pages import version as version_page
from kreislauf.registry.artifacts import amend_card
from kreislauf.release import permission
from models import spec

INTEGERS = {
    "version",
    "parent",
    "holdout_start",
    "holdout_end",
    "champion_version",
    "groups",
    "needed",
}
TEXTS = {"model", "outcome", "metric", "holdout", "reasons", "slices", "costs"}


@task(task_run_name="judge-{model}-{challenger}-against-{champion}")
def judge(model: str, challenger: int, champion: int | None) -> gate.Decision:
    """Let challenger, champion and trivial baseline answer the challenger's hold-out, and
    decide."""
    model_type = spec.load(model)
    version = registry.get(model, challenger)
    lineage = version.lineage
    table = model_type.table
    profile = pl.read_parquet(registry.artifact(version, "training_profile"))
    rows = lake.rebuild(table, *lineage.snapshot)
    rows = split.started(rows, table, lineage.holdout, lineage.watermark)
    examples = model_type.examples(rows)
    slices = {
        column.name: column.cast(pl.String).to_numpy()
        for column in model_type.slices(rows, profile)
    }
    holdout = gate.Holdout(
        digest=examples.digest(),
        start=lineage.holdout,
        groups=examples.groups,
        slices=slices,
        clicked=feedback.clicked(model, examples, lineage.holdout, lineage.watermark),
        days=(lineage.watermark + 1 - lineage.holdout) / DAY_MS,
    )

    def score(onnx: Path, trained_until: int, number: int | None = None) -> gate.Scores:
        outputs = scoring.answer(onnx, examples.inputs)
        cost = gate.Cost(
            scoring.p95(onnx, examples.inputs),
            onnx.stat().st_size / 1e6,
            model_type.coverage(outputs, profile),
        )
        return gate.Scores(
            values=model_type.score(examples, outputs),
            holdout=holdout,
            metric=model_type.metric,
            trained_until=trained_until,
            onnx=registry.sha256(onnx),
            version=number,
            cost=cost,
            probabilities=model_type.probabilities(outputs),
        )

    champion_scores = None
    if champion:
        rival = permission.registered_or_kept(model, champion)
        champion_scores = score(permission.onnx_file(rival), rival.lineage.holdout, champion)
    return gate.decide(
        challenger=score(registry.onnx_file(version), lineage.holdout, challenger),
        champion=champion_scores,
        baseline=score(registry.artifact(version, "baseline"), lineage.holdout),
        policy=model_type.policy,
    )


def choose_challenger(model: str, version: int | None) -> registry.Version:
    """The version, or else the newest. Raises RegistryError when there is none."""
    if version:
        return registry.get(model, version)
    versions = registry.versions(model)
    if not versions:
        raise registry.RegistryError(f"{model} has no version yet: train one first.")
    return versions[0]


def note_decision(challenger: registry.Version, decision: gate.Decision) -> None:
    """Add the decision to the lake's table of decisions, once, with the id of this flow run."""
    key = f"{challenger.model}/{challenger.number}/{decision.champion_version}"
    run = pl.lit(flow_run.get_id(), pl.String)
    journal.append_once(DECISIONS, key, as_row(challenger, decision).with_columns(flow_run=run))


def as_row(version: registry.Version, decision: gate.Decision) -> pl.DataFrame:
    """One row for the table of decisions."""
    stored = decision.model_dump(mode="json")
    row: dict = {
        "model": version.model,
        "version": version.number,
        "parent": version.lineage.parent,
        "holdout_start": version.lineage.holdout,
        "holdout_end": version.lineage.watermark,
    }
    for name in ("champion_version", "outcome", "metric", "groups", "needed", "holdout"):
        row[name] = stored[name]
    for name in ("challenger", "champion", "baseline"):
        row[f"{name}_score"] = stored[name]
    for name in ("gain", "over_baseline"):
        interval = stored[name] or {}
        for bound in ("mean", "low", "high"):
            row[f"{name}_{bound}"] = interval.get(bound)
    row["reasons"] = " ".join(decision.reasons)
    row["slices"] = json.dumps(stored["slices"])
    row["costs"] = json.dumps(stored["costs"])
    columns = {name: [value] for name, value in row.items()}
    return pl.DataFrame(columns, schema={name: dtype(name) for name in row})


def dtype(column: str) -> type[pl.DataType]:
    """Type of a column of the table of decisions."""
    if column in INTEGERS:
        return pl.Int64
    if column in TEXTS:
        return pl.String
    return pl.Float64


@task(task_run_name="describe-{model}-{number}")
def describe(model: str, number: int, decision: gate.Decision) -> str:
    """Add the version's card to its run; what A/B tests have added to it stays. Returns it as
    Markdown."""
    model_type = spec.load(model)
    version = registry.get(model, number)
    smallest = split.detectable(decision.groups, model_type.policy)
    rows = lake.rebuild(model_type.table, *version.lineage.snapshot)
    drifts = measure_drift(model_type, rows, version.lineage)
    decisions = journal.read(DECISIONS, model=model)
    text = version_page.page(version, decision, smallest, drifts, decisions)
    html = markdown.page(f"{model} version {number}", text, registry.curves(version))
    amend_card(version, lambda before: markdown.with_sections_of(html, before))
    return text


def measure_drift(
    model_type: spec.ModelSpec, rows: pl.DataFrame, lineage: registry.Lineage
) -> dict[str, float]:
    """Population stability index of each column: the hold-out against as long a time before it.

    Each of the two is profiled as by a model that learnt from all before it. Empty if there is no
    such time.
    """
    length = lineage.watermark - lineage.holdout + 1
    before = lineage.holdout - length
    if before <= lineage.start:
        return {}
    window = monitored(model_type, rows, lineage.holdout, length)
    reference = monitored(model_type, rows, before, length)
    with tempfile.TemporaryDirectory() as folder:
        return drift.compare(window, reference, Path(folder) / "drift.html").values


def monitored(
    model_type: spec.ModelSpec, rows: pl.DataFrame, start: int, length: int
) -> pl.DataFrame:
    """The monitored columns of the groups that began in a stretch of `length` ms from `start`, with
    a profile of all rows before it."""
    learnt = rows.lazy().filter(pl.col(model_type.table.time) < start)
    profile = model_type.training_profile(learnt).collect()
    window = split.started(rows, model_type.table, start, start + length - 1)
    return model_type.monitored(window.lazy(), profile).collect()
