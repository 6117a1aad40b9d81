"""Decisions of the gate about files of any model type, and the version that they are about."""

from pathlib import Path

import numpy as np
import polars as pl

from kreislauf.evaluation import gate, scoring
from kreislauf.registry import Lineage, Version
from models.spec import ModelSpec, TrainingResult

FREE = gate.Cost(0.0, 0.0)


def outcome(
    model_type: ModelSpec, groups: int, challenger: float, champion: float | None, baseline: float
) -> str:
    """What the gate says where each model answers all of so many groups equally well."""
    holdout = gate.Holdout("digest", 1, np.arange(groups))

    def scores(value: float, version: int | None) -> gate.Scores:
        values = np.full(groups, value)
        return gate.Scores(values, holdout, model_type.metric, 0, str(version), version, FREE)

    rival = None if champion is None else scores(champion, 1)
    return gate.decide(
        scores(challenger, 2), rival, scores(baseline, None), model_type.policy
    ).outcome


def decide(
    model_type: ModelSpec, rows: pl.DataFrame, trained: TrainingResult, baseline: Path
) -> gate.Decision:
    """The gate's decision about a training's file, which answers what it has learnt from; the
    baseline is champion, too. A slice of two groups is tested already."""
    profile = model_type.training_profile(rows.lazy()).collect()
    examples = model_type.examples(rows)
    slices = model_type.slices(rows, profile)
    by_name = {column.name: column.cast(pl.String).to_numpy() for column in slices}
    holdout = gate.Holdout(examples.digest(), 1, examples.groups, by_name)

    def scores(file: Path, version: int | None) -> gate.Scores:
        outputs = scoring.answer(file, examples.inputs)
        return gate.Scores(
            model_type.score(examples, outputs),
            holdout,
            model_type.metric,
            0,
            f"file {version}",
            version,
            gate.Cost(1.0, file.stat().st_size / 1e6, model_type.coverage(outputs, profile)),
            model_type.probabilities(outputs),
        )

    policy = model_type.policy.model_copy(update={"min_groups": 2, "slice_groups": 2})
    return gate.decide(scores(trained.onnx, 2), scores(baseline, 1), scores(baseline, None), policy)


def version_of(model_type: ModelSpec, rows: pl.DataFrame, trained: TrainingResult) -> Version:
    """The version that a training would become."""
    time = rows[model_type.table.time]
    lineage = Lineage(
        key="key",
        table=model_type.table.name,
        table_version=1,
        start=time.min(),
        holdout=time.max(),
        watermark=time.max(),
        digest="digest",
    )
    return Version(
        model=model_type.name,
        number=2,
        run_id="run",
        digests={"model.onnx": "digest"},
        lineage=lineage,
        parity=trained.parity,
    )
