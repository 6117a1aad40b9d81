"""Train a challenger: time split -> fit -> ONNX file with proven parity -> registered version."""

import hashlib
import inspect
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from prefect import flow, get_run_logger, task
from pydantic import BaseModel

from models import spec
from tasks import lake, registry, releases, scoring, split

GOLDEN_EXAMPLES = 64


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
    return fit(model, settled.model_dump(mode="json"), lineage)


def plan(kind: spec.ModelSpec, params: BaseModel) -> registry.Lineage:
    """What the next training learns from, and which version it starts from."""
    version = lake.version(kind.table)
    rows = lake.read(kind.table, version)
    at = split.cut(rows, kind.table, version, kind.policy)
    live = releases.current(kind.name)
    parent = live.champion if live else None
    # Weights that have seen the hold-out must not get into the challenger by the back door.
    if parent and registry.get(kind.name, parent).lineage.holdout > at.holdout:
        parent = None
    digest = lake.digest(rows)
    inputs = [kind.name, params.model_dump(mode="json"), at.holdout, digest, parent, code_digest(kind)]
    key = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
    return registry.Lineage(key=key, table=kind.table.name, parent=parent, digest=digest, **at.model_dump())


def code_digest(kind: spec.ModelSpec) -> str:
    """Digest of the model type's own code: changed code is another training, a changed README is not."""
    files = [*sorted(Path(inspect.getfile(type(kind))).parent.glob("*.py")), Path(spec.__file__)]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


@task(task_run_name="fit-{model}")
def fit(model: str, params: dict[str, Any], lineage: registry.Lineage) -> registry.Version:
    """Train, export, prove parity and register; nothing is visible before all of it is done."""
    kind = spec.load(model)
    rows = lake.rebuild(kind.table, lineage.table_version, lineage.watermark, lineage.digest)
    rows = rows.filter(pl.col(kind.table.time) < lineage.holdout)
    parent = registry.artifact(registry.get(model, lineage.parent), "weights") if lineage.parent else None
    settled = kind.Params.model_validate(params)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        trained = kind.train(rows, settled, spec.Work(folder, parent))
        files = {
            "weights": trained.weights,
            "baseline": kind.baseline(rows, folder),
            "golden": write_golden(kind, rows, trained.onnx, folder / "golden.json"),
        }
        return registry.register(model, trained, settled, lineage, files)


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
