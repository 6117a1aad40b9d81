"""Golden requests, with the answers that a server must give alike. A training writes them, a
publish reads them."""

import json
from pathlib import Path

import numpy as np
import polars as pl

from kreislauf.evaluation import scoring
from models import spec, text
from models.spec import Tensors

SCORE_TOLERANCE = 1e-4
"""Tolerance, relative and absolute: Triton may run another build of onnxruntime than trainings."""
GOLDEN_EXAMPLES = 64
"""Number of real requests that are asked, beside the edge cases."""


def write_golden(model_type: spec.ModelSpec, rows: pl.DataFrame, onnx: Path, path: Path) -> Path:
    """Store edge cases and real requests with the answers of `onnx`: the questions that a server
    must answer alike."""
    edges = model_type.tensors(model_type.golden())
    newest = model_type.examples(newest_groups(rows, model_type.table, GOLDEN_EXAMPLES)).inputs
    inputs = text.unify(
        {name: np.concatenate([edges[name], newest[name][:GOLDEN_EXAMPLES]]) for name in edges}
    )
    outputs = scoring.answer(onnx, inputs)
    path.write_text(json.dumps({"inputs": as_json(inputs), "outputs": as_json(outputs)}))
    return path


def read_golden(content: bytes) -> tuple[Tensors, Tensors]:
    """The requests of `write_golden` and the expected answers."""
    stored = json.loads(content)
    return from_json(stored["inputs"]), from_json(stored["outputs"])


def as_json(tensors: Tensors) -> dict[str, dict]:
    """Tensors as JSON values."""
    return {
        name: {"dtype": str(array.dtype), "values": array.tolist()}
        for name, array in tensors.items()
    }


def from_json(stored: dict[str, dict]) -> Tensors:
    """Tensors from what `as_json` made of them."""
    return {
        name: np.array(tensor["values"], dtype=tensor["dtype"]) for name, tensor in stored.items()
    }


def newest_groups(rows: pl.DataFrame, table: spec.Table, count: int) -> pl.DataFrame:
    """Rows of the `count` groups that began last."""
    starts = rows.group_by(table.group).agg(pl.col(table.time).min())
    return rows.join(starts.top_k(count, by=[table.time, table.group]), on=table.group, how="semi")


def compare(actual: Tensors, expected: Tensors) -> str:
    """What differs, in words; empty when integers and text are equal and floats within
    SCORE_TOLERANCE."""
    actual = text.unify(actual)
    for name, right in text.unify(expected).items():
        array = actual.get(name)
        if array is None:
            return f"output {name} has shape None, not {right.shape}"
        if array.shape != right.shape:
            return f"output {name} has shape {array.shape}, not {right.shape}"
        if np.issubdtype(right.dtype, np.floating):
            same = np.isclose(array, right, rtol=SCORE_TOLERANCE, atol=SCORE_TOLERANCE)
        else:
            same = array == right
        if not same.all():
            return f"output {name} differs in {int((~same).sum())} of {same.size} values"
    return ""
