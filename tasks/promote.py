"""Tasks of promote: judge a challenger, and describe it"""

import json
import tempfile
from pathlib import Path

import polars as pl
from prefect import task

from kreislauf import lake, registry
from kreislauf.evaluation import gate, scoring, split
from kreislauf.lake import journal
from kreislauf.monitoring import drift
from kreislauf.pages import markdown
from kreislauf.pages.version import page
from models import spec

DECISIONS = "decisions"
"""The lake's table with a row for each."""


@task(task_run_name="judge-{model}-{challenger}-against-{champion}")
def judge(model: str, challenger: int, champion: int | None) -> gate.Decision:
    """Let challenger, champion and trivial baseline answer the challenger's hold-out, and
    decide."""
    model_type = spec.load(model)
    version = registry.get(model, challenger)
    lineage = version.lineage
    whole = lake.rebuild(
        model_type.table, lineage.table_version, lineage.watermark, lineage.digest, lineage.without
    )
    known = pl.read_parquet(registry.artifact(version, "known"))
    rows = split.started(whole, model_type.table, lineage.holdout, lineage.watermark)
    examples = model_type.examples(rows)
    by = {
        column.name: column.cast(pl.String).to_numpy() for column in model_type.slices(rows, known)
    }
    holdout = gate.Holdout(examples.digest(), lineage.holdout, examples.groups, by)

    def score(onnx: Path, trained_until: int, number: int | None = None) -> gate.Scores:
        outputs = scoring.answer(onnx, examples.inputs)
        return gate.Scores(
            values=model_type.score(examples, outputs),
            holdout=holdout,
            metric=model_type.metric,
            trained_until=trained_until,
            onnx=registry.sha256(onnx),
            version=number,
            cost=gate.Cost(
                scoring.p95(onnx, examples.inputs),
                onnx.stat().st_size / 1e6,
                model_type.coverage(outputs, known),
            ),
            probabilities=model_type.probabilities(outputs),
        )

    rival = registry.get(model, champion) if champion else None
    return gate.decide(
        challenger=score(registry.onnx_file(version), lineage.holdout, challenger),
        champion=score(registry.onnx_file(rival), rival.lineage.holdout, champion)
        if rival
        else None,
        baseline=score(registry.artifact(version, "baseline"), lineage.holdout),
        policy=model_type.policy,
    )


def as_row(version: registry.Version, decision: gate.Decision) -> pl.DataFrame:
    """One row for the table of decisions."""
    told = decision.model_dump(mode="json")
    flat: dict = {
        "model": version.model,
        "version": version.number,
        "parent": version.lineage.parent,
    }
    flat |= {"holdout_start": version.lineage.holdout, "holdout_end": version.lineage.watermark}
    flat |= {
        name: told[name]
        for name in ("champion_version", "outcome", "metric", "groups", "needed", "holdout")
    }
    flat |= {f"{who}_score": told[who] for who in ("challenger", "champion", "baseline")}
    for name in ("gain", "over_baseline"):
        flat |= {f"{name}_{part}": (told[name] or {}).get(part) for part in ("mean", "low", "high")}
    flat |= {"reasons": " ".join(decision.reasons)} | {
        name: json.dumps(told[name]) for name in ("slices", "costs")
    }
    whole = {
        "version",
        "parent",
        "holdout_start",
        "holdout_end",
        "champion_version",
        "groups",
        "needed",
    }
    text = {"model", "outcome", "metric", "holdout", "reasons", "slices", "costs"}
    types = {
        name: pl.Int64 if name in whole else pl.String if name in text else pl.Float64
        for name in flat
    }
    return pl.DataFrame({name: [value] for name, value in flat.items()}, schema=types)


@task(task_run_name="describe-{model}-{number}")
def describe(model: str, number: int, decision: gate.Decision) -> str:
    """Add the version's card to its run. Returns it as Markdown."""
    model_type = spec.load(model)
    version = registry.get(model, number)
    moved = drifted(model_type, version.lineage)
    judged = journal.read(DECISIONS).filter(pl.col("model") == model)
    text = page(
        version, decision, split.detectable(decision.groups, model_type.policy), moved, judged
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "card.html"
        path.write_text(
            markdown.page(f"{model} version {number}", text, registry.curves(version)),
            encoding="utf-8",
        )
        registry.attach(version, "card", path)
    return text


def drifted(model_type: spec.ModelSpec, lineage: registry.Lineage) -> dict[str, float]:
    """How far each column of the hold-out is from the same stretch of time before it, both as they
    would have been seen by a model that learnt from all before; empty if there is no such
    stretch."""
    rows = lake.rebuild(
        model_type.table, lineage.table_version, lineage.watermark, lineage.digest, lineage.without
    )
    stretch = lineage.watermark - lineage.holdout + 1

    def seen(start: int) -> pl.DataFrame:
        part = split.started(rows, model_type.table, start, start + stretch - 1)
        known = model_type.training_profile(
            rows.lazy().filter(pl.col(model_type.table.time) < start)
        ).collect()
        return model_type.monitored(part.lazy(), known).collect()

    if lineage.holdout - stretch <= lineage.start:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        return drift.compare(
            seen(lineage.holdout), seen(lineage.holdout - stretch), Path(folder) / "drift.html"
        ).values
