"""Train a challenger: time split -> fit -> ONNX file with proven parity -> registered version."""

import hashlib
import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from prefect import flow, get_run_logger, task
from pydantic import BaseModel

from models import spec
from tasks import lake, registry, releases, scoring, split
from tasks.progress import Progress
from tasks.settings import settings

GOLDEN_EXAMPLES = 64
HOLDOUT_ROWS = 50_000
"""Of the hold-out, in whole groups, that are kept with the version."""
ABANDONED_DAYS = 7
"""Of the wall clock: this is about disk space, not about data."""


@flow
def train(model: str = "session_recommender", params: dict[str, Any] | None = None) -> registry.Version:
    """Train one challenger on everything before the hold-out, and register it.

    The same data, parameters, parent and code give the version that is there already: a rerun continues, it does not
    repeat.

    Args:
        model: Name of the model type, a folder in `models/`.
        params: Training parameters that differ from the defaults of the model type's `Params`.

    Returns:
        The registered version, alias `challenger`.

    Raises:
        ValueError: unknown model type, wrong parameters, too little data.
        lake.LakeError, registry.RegistryError: a store is missing or does not answer.
    """
    kind = spec.load(model)
    settled = kind.Params.model_validate(params or {})
    lineage = plan(kind, settled)
    existing = registry.find(model, lineage.key)
    if existing:
        get_run_logger().info(f"Version {existing.number} was trained from exactly this before.")
        registry.call_challenger(existing)
        return existing
    smallest = split.detectable(lineage.groups, kind.policy)
    get_run_logger().info(
        f"The hold-out of {lineage.groups} groups finds a gain of {smallest:.4f} {kind.metric} in "
        f"{kind.policy.power:.0%} of the cases, a smaller one less often."
    )
    return fit(model, settled.model_dump(mode="json"), lineage)


def plan(kind: spec.ModelSpec, params: BaseModel) -> registry.Lineage:
    """What the next training learns from, and which version it starts from."""
    version = lake.version(kind.table)
    without = lake.distrusted(kind.table.name)
    rows = lake.read(kind.table, version, without=without)
    at = split.cut(rows, kind.table, version, kind.policy)
    live = releases.current(kind.name)
    parent = live.champion if live else None
    # Weights that have seen the hold-out must not get into the challenger by the back door.
    if parent and registry.get(kind.name, parent).lineage.holdout > at.holdout:
        parent = None
    digest = lake.digest(rows)
    inputs = [kind.name, params.model_dump(mode="json"), at.holdout, digest, parent, spec.code_digest(kind)]
    key = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
    return registry.Lineage(
        key=key, table=kind.table.name, parent=parent, digest=digest, without=without, **at.model_dump()
    )


@task(task_run_name="fit-{model}")
def fit(model: str, params: dict[str, Any], lineage: registry.Lineage) -> registry.Version:
    """Train, export, prove parity and register; nothing is visible before all of it is done.

    A run that was killed is continued by the next one with the same lineage, from its last checkpoint.
    """
    kind = spec.load(model)
    whole = lake.rebuild(kind.table, lineage.table_version, lineage.watermark, lineage.digest, lineage.without)
    rows = whole.filter(pl.col(kind.table.time) < lineage.holdout)
    parent = registry.artifact(registry.get(model, lineage.parent), "weights") if lineage.parent else None
    settled = kind.Params.model_validate(params)
    folder = Path(settings().training) / model / lineage.key
    folder.mkdir(parents=True, exist_ok=True)
    work = spec.Work(folder, parent, settings().trainer, Progress.of(f"Training {model}"))
    trained = kind.train(rows, settled, work)
    files = {
        "weights": trained.weights,
        "baseline": kind.baseline(rows, folder),
        **write_watch(kind, rows, split.started(whole, kind.table, lineage.holdout, lineage.watermark), folder),
        "golden": write_golden(kind, rows, trained.onnx, folder / "golden.json"),
    }
    version = registry.register(model, trained, settled, lineage, files)
    sweep(folder)
    return version


def write_watch(kind: spec.ModelSpec, rows: pl.DataFrame, holdout: pl.DataFrame, folder: Path) -> dict[str, Path]:
    """Store what whoever watches the version needs beside it: what is known of the rows that it learnt from, and a
    sample of its hold-out."""
    files = {"known": folder / "known.parquet", "holdout": folder / "holdout.parquet"}
    kind.known(rows.lazy()).collect().write_parquet(files["known"])
    split.some(holdout, kind.table, HOLDOUT_ROWS).write_parquet(files["holdout"])
    return files


def sweep(folder: Path) -> None:
    """Removes the folder of a finished training, and those that nobody has continued for `ABANDONED_DAYS`."""
    shutil.rmtree(folder)
    for other in folder.parent.iterdir():
        newest = max((path.stat().st_mtime for path in [other, *other.rglob("*")]), default=0)
        if time.time() - newest > ABANDONED_DAYS * 86_400:
            shutil.rmtree(other)


def write_golden(kind: spec.ModelSpec, rows: pl.DataFrame, onnx: Path, path: Path) -> Path:
    """Store edge cases and real requests with the answers of `onnx`: the questions that a server must answer alike."""
    edges, newest = kind.tensors(kind.golden()), kind.examples(newest_groups(rows, kind.table, GOLDEN_EXAMPLES)).inputs
    inputs = {name: np.concatenate([edges[name], newest[name][:GOLDEN_EXAMPLES]]) for name in edges}
    tensors = {"inputs": inputs, "outputs": scoring.answer(onnx, inputs)}
    path.write_text(
        json.dumps(
            {
                side: {name: {"dtype": str(a.dtype), "values": a.tolist()} for name, a in arrays.items()}
                for side, arrays in tensors.items()
            }
        )
    )
    return path


def newest_groups(rows: pl.DataFrame, table: spec.Table, count: int) -> pl.DataFrame:
    """Rows of the `count` groups that began last."""
    starts = rows.group_by(table.group).agg(pl.col(table.time).min())
    return rows.join(starts.top_k(count, by=[table.time, table.group]), on=table.group, how="semi")
