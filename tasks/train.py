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
    kind = spec.load(model)
    whole = lake.rebuild(
        kind.table, lineage.table_version, lineage.watermark, lineage.digest, lineage.without
    )
    rows = whole.filter(pl.col(kind.table.time) < lineage.holdout)
    parent = (
        registry.artifact(registry.get(model, lineage.parent), "weights")
        if lineage.parent
        else None
    )
    settled = kind.Params.model_validate(params)
    folder = Path(settings().training) / model / lineage.key
    folder.mkdir(parents=True, exist_ok=True)
    work = spec.Work(folder, parent, settings().trainer, Progress.of(f"Training {model}"))
    trained = kind.train(rows, settled, work)
    files = {
        "weights": trained.weights,
        "baseline": kind.baseline(rows, folder),
        **write_watch(
            kind, rows, split.started(whole, kind.table, lineage.holdout, lineage.watermark), folder
        ),
        "golden": write_golden(kind, rows, trained.onnx, folder / "golden.json"),
    }
    version = registry.register(model, trained, settled, lineage, files)
    sweep(folder)
    return version


def write_watch(
    kind: spec.ModelSpec, rows: pl.DataFrame, holdout: pl.DataFrame, folder: Path
) -> dict[str, Path]:
    """Store what whoever watches the version needs beside it: what is known of the rows that it
    learnt from, and a sample of its hold-out."""
    files = {"known": folder / "known.parquet", "holdout": folder / "holdout.parquet"}
    kind.known(rows.lazy()).collect().write_parquet(files["known"])
    split.some(holdout, kind.table, HOLDOUT_ROWS).write_parquet(files["holdout"])
    return files


def sweep(folder: Path) -> None:
    """Removes the folder of a finished training, and those that nobody has continued for
    `ABANDONED_DAYS`."""
    shutil.rmtree(folder)
    for other in folder.parent.iterdir():
        newest = max((path.stat().st_mtime for path in [other, *other.rglob("*")]), default=0)
        if time.time() - newest > ABANDONED_DAYS * 86_400:
            shutil.rmtree(other)
