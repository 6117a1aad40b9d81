"""Tasks of train: plan a training, fit a model and register it."""

import shutil
import time
from pathlib import Path
from typing import Any

import polars as pl
from prefect import task
from pydantic import BaseModel

from kreislauf import lake, progress, registry
from kreislauf.evaluation import split
from kreislauf.release import golden, releases
from kreislauf.settings import settings
from kreislauf.training import inputs
from models import spec

HOLDOUT_ROWS = 50_000
"""Maximum rows of the hold-out, in whole groups, that are kept with the version."""
ABANDONED_DAYS = 7
"""Days of the wall clock after which a training that nobody continues loses its folder."""


def plan(
    model_type: spec.ModelSpec, params: BaseModel, data: inputs.TrainingData
) -> registry.Lineage:
    """What the next training learns from, and which version it starts from."""
    parent = choose_parent(model_type, data.cut.holdout)
    key = registry.digest_inputs(
        model_type.name,
        params.model_dump(mode="json"),
        data.cut.holdout,
        data.digest,
        parent,
        spec.code_digest(model_type),
    )
    return data.lineage(model_type.table.name, key, parent)


def choose_parent(model_type: spec.ModelSpec, holdout: int) -> int | None:
    """The live version, unless its weights have seen the hold-out: that must not get into the
    challenger by the back door."""
    live = releases.current(model_type.name)
    if live is None:
        return None
    if registry.get(model_type.name, live.champion).lineage.holdout > holdout:
        return None
    return live.champion


@task(task_run_name="fit-{model}")
def fit(model: str, params: dict[str, Any], lineage: registry.Lineage) -> registry.Version:
    """Train, export, prove parity and register; nothing is visible before all of it is done.

    A run that was killed is continued by the next one with the same lineage, from its last
    checkpoint.
    """
    model_type = spec.load(model)
    rows = lake.rebuild(model_type.table, *lineage.snapshot)
    learnt = rows.filter(pl.col(model_type.table.time) < lineage.holdout)
    holdout = split.started(rows, model_type.table, lineage.holdout, lineage.watermark)
    hyperparameters = model_type.Params.model_validate(params)
    folder = Path(settings().training) / model / lineage.key
    folder.mkdir(parents=True, exist_ok=True)
    context = spec.TrainingContext(
        folder,
        parent_weights(model, lineage),
        settings().trainer,
        progress.Progress.of(f"Training {model}"),
    )
    trained = model_type.train(learnt, hyperparameters, context)
    files = {
        "weights": trained.weights,
        "baseline": model_type.baseline(learnt, folder),
        "training_profile": write_profile(model_type, learnt, folder),
        "holdout": write_holdout(model_type, holdout, folder),
        "golden": golden.write_golden(model_type, learnt, trained.onnx, folder / "golden.json"),
    }
    version = registry.register(model, trained, hyperparameters, lineage, files)
    sweep(folder)
    return version


def parent_weights(model: str, lineage: registry.Lineage) -> Path | None:
    """Weights that the training starts from; None for a cold start."""
    if lineage.parent is None:
        return None
    return registry.artifact(registry.get(model, lineage.parent), "weights")


def write_profile(model_type: spec.ModelSpec, rows: pl.DataFrame, folder: Path) -> Path:
    """Store what the monitor has to know of the rows that the version learnt from."""
    path = folder / "training_profile.parquet"
    model_type.training_profile(rows.lazy()).collect().write_parquet(path)
    return path


def write_holdout(model_type: spec.ModelSpec, rows: pl.DataFrame, folder: Path) -> Path:
    """Store a sample of the hold-out, for the monitor to compare windows with."""
    path = folder / "holdout.parquet"
    split.some(rows, model_type.table, HOLDOUT_ROWS).write_parquet(path)
    return path


def sweep(folder: Path) -> None:
    """Remove the folder of a finished training, and those that nobody has continued for
    `ABANDONED_DAYS`."""
    shutil.rmtree(folder)
    for abandoned in folder.parent.iterdir():
        paths = [abandoned, *abandoned.rglob("*")]
        newest = max((path.stat().st_mtime for path in paths), default=0)
        if time.time() - newest > ABANDONED_DAYS * 86_400:
            shutil.rmtree(abandoned)
