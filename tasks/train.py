"""Tasks of train: fit a model and register it"""

import shutil
import time
from pathlib import Path
from typing import Any

import polars as pl
from prefect import task

from kreislauf import lake, registry
from kreislauf.evaluation import split
from kreislauf.progress import Progress
from kreislauf.release.golden import write_golden
from kreislauf.settings import settings
from models import spec

HOLDOUT_ROWS = 50_000
"""Of the hold-out, in whole groups, that are kept with the version."""
ABANDONED_DAYS = 7
"""Of the wall clock: this is about disk space, not about data."""


@task(task_run_name="fit-{model}")
def fit(model: str, params: dict[str, Any], lineage: registry.Lineage) -> registry.Version:
    """Train, export, prove parity and register; nothing is visible before all of it is done.

    A run that was killed is continued by the next one with the same lineage, from its last
    checkpoint.
    """
    model_type = spec.load(model)
    whole = lake.rebuild(
        model_type.table, lineage.table_version, lineage.watermark, lineage.digest, lineage.without
    )
    rows = whole.filter(pl.col(model_type.table.time) < lineage.holdout)
    parent = (
        registry.artifact(registry.get(model, lineage.parent), "weights")
        if lineage.parent
        else None
    )
    settled = model_type.Params.model_validate(params)
    folder = Path(settings().training) / model / lineage.key
    folder.mkdir(parents=True, exist_ok=True)
    work = spec.TrainingContext(
        folder, parent, settings().trainer, Progress.of(f"Training {model}")
    )
    trained = model_type.train(rows, settled, work)
    files = {
        "weights": trained.weights,
        "baseline": model_type.baseline(rows, folder),
        **write_watch(
            model_type,
            rows,
            split.started(whole, model_type.table, lineage.holdout, lineage.watermark),
            folder,
        ),
        "golden": write_golden(model_type, rows, trained.onnx, folder / "golden.json"),
    }
    version = registry.register(model, trained, settled, lineage, files)
    sweep(folder)
    return version


def write_watch(
    model_type: spec.ModelSpec, rows: pl.DataFrame, holdout: pl.DataFrame, folder: Path
) -> dict[str, Path]:
    """Store what whoever watches the version needs beside it: what is known of the rows that it
    learnt from, and a sample of its hold-out."""
    files = {"known": folder / "known.parquet", "holdout": folder / "holdout.parquet"}
    model_type.training_profile(rows.lazy()).collect().write_parquet(files["known"])
    split.some(holdout, model_type.table, HOLDOUT_ROWS).write_parquet(files["holdout"])
    return files


def sweep(folder: Path) -> None:
    """Removes the folder of a finished training, and those that nobody has continued for
    `ABANDONED_DAYS`."""
    shutil.rmtree(folder)
    for other in folder.parent.iterdir():
        newest = max((path.stat().st_mtime for path in [other, *other.rglob("*")]), default=0)
        if time.time() - newest > ABANDONED_DAYS * 86_400:
            shutil.rmtree(other)
