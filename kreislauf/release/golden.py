"""Golden requests, with the answers that a server must give alike. A training writes them, a
publish reads them."""

import json
from pathlib import Path

import numpy as np
import polars as pl

from kreislauf.evaluation import scoring
from models import spec
from models.spec import Tensors

SCORE_TOLERANCE = 1e-4
"""Triton may run another build of onnxruntime than the one that answered at training time."""

GOLDEN_EXAMPLES = 64


def write_golden(model_type: spec.ModelSpec, rows: pl.DataFrame, onnx: Path, path: Path) -> Path:
    """Store edge cases and real requests with the answers of `onnx`: the questions that a server
    must answer alike."""
    edges = model_type.tensors(model_type.golden())
    newest = model_type.examples(newest_groups(rows, model_type.table, GOLDEN_EXAMPLES)).inputs
    inputs = {name: np.concatenate([edges[name], newest[name][:GOLDEN_EXAMPLES]]) for name in edges}
    tensors = {"inputs": inputs, "outputs": scoring.answer(onnx, inputs)}
    path.write_text(
        json.dumps(
            {
                side: {
                    name: {"dtype": str(a.dtype), "values": a.tolist()}
                    for name, a in arrays.items()
                }
                for side, arrays in tensors.items()
            }
        )
    )
    return path


def newest_groups(rows: pl.DataFrame, table: spec.Table, count: int) -> pl.DataFrame:
    """Rows of the `count` groups that began last."""
    starts = rows.group_by(table.group).agg(pl.col(table.time).min())
    return rows.join(starts.top_k(count, by=[table.time, table.group]), on=table.group, how="semi")


def tensors(stored: dict[str, dict]) -> Tensors:
    """Tensors from their JSON form."""
    return {
        name: np.array(tensor["values"], dtype=tensor["dtype"]) for name, tensor in stored.items()
    }


def compare(found: Tensors, expected: Tensors) -> str:
    """What differs, in words; empty when integers and text are equal and floats within
    SCORE_TOLERANCE."""
    for name, right in expected.items():
        got = found.get(name)
        if got is None or got.shape != right.shape:
            return (
                f"output {name} has shape {None if got is None else got.shape}, not {right.shape}"
            )
        floating = np.issubdtype(right.dtype, np.floating)
        same = (
            np.isclose(got, right, rtol=SCORE_TOLERANCE, atol=SCORE_TOLERANCE)
            if floating
            else got == right
        )
        if not same.all():
            return f"output {name} differs in {int((~same).sum())} of {same.size} values"
    return ""
