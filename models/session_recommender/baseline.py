"""The trivial model: the co-visitation table alone, in the same ONNX contract.

It is fitted often, so it does without torch.
"""

from pathlib import Path

import numpy as np
import onnx
import polars as pl
from onnx import helper, numpy_helper

from models.session_recommender.covisitation import (
    CREDIT,
    FLOOR,
    NEIGHBOURS,
    NEVER,
    Covisitation,
    covisit,
)
from models.session_recommender.features import LENGTH, Catalogue, events
from models.session_recommender.vocabulary import with_vocabulary
from models.spec import OPSET


def build(rows: pl.DataFrame, folder: Path) -> Path:
    """Fit the table on `rows` and write `baseline.onnx` to `folder`.

    Raises ValueError if there are no rows.
    """
    if rows.is_empty():
        raise ValueError("No rows to fit the baseline on: widen the window.")
    e = events(rows)
    catalogue = Catalogue.of(e)
    path = folder / "baseline.onnx"
    onnx.save(with_vocabulary(graph(covisit(e, catalogue), catalogue), catalogue), path)
    return path


def graph(table: Covisitation, catalogue: Catalogue) -> onnx.ModelProto:
    """Graph of what `scorer.Scorer` does without encoder and ranker, node by node.

    A test holds both together.
    """
    popularity = table.popularity
    with np.errstate(divide="ignore"):
        prior = 0.01 * np.log(popularity / max(popularity.max(), 1e-9))
    constants = {
        "neighbours": table.neighbours.astype(np.int32),
        "weights": table.weights,
        "prior": np.where(popularity > 0, prior, NEVER).astype(np.float32),
        "nothing": np.array(catalogue.nothing),
        "never": np.float32(NEVER / 2),
        "near": np.float32(CREDIT[0]),
        "own": np.float32(CREDIT[1]),
        "floor": np.float32(FLOOR),
        "one": np.float32(1),
        "first": np.array(1),
        "longest": np.array(LENGTH - 1),
        "beside": np.array([-1]),
        "flat": np.array([0, LENGTH * NEIGHBOURS]),
        "size": np.array([catalogue.size]),
        "answers_of_each": np.array([LENGTH]),
    }
    initializers = [
        numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()
    ]
    body = helper.make_graph(_nodes(), "covisitation", [], [], initializers)
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)


def _nodes() -> list[onnx.NodeProto]:
    """Nodes from `rows`, int64 (batch, LENGTH), to `best` and `scores`."""

    def node(operator: str, inputs: str, output: str, **attributes) -> onnx.NodeProto:
        return helper.make_node(operator, inputs.split(), output.split(), **attributes)

    return [
        node("Gather", "prior rows", "prior_of_rows"),
        node("Greater", "prior_of_rows never", "known"),
        node("Where", "known rows nothing", "session"),
        # Known events that came after each one.
        node("Cast", "known", "counted", to=onnx.TensorProto.INT64),
        node("CumSum", "counted first", "after", reverse=1, exclusive=1),
        node("Min", "after longest", "limited"),
        node("Cast", "limited", "ages", to=onnx.TensorProto.FLOAT),
        node("Cast", "known", "is_known", to=onnx.TensorProto.FLOAT),
        node("Pow", "near ages", "near_faded"),
        node("Mul", "near_faded is_known", "near_credit"),
        node("Pow", "own ages", "own_faded"),
        node("Mul", "own_faded is_known", "own_credit"),
        # The articles seen together with each of the session's, and the session's own.
        node("Gather", "neighbours session", "close_short"),
        node("Cast", "close_short", "close", to=onnx.TensorProto.INT64),
        node("Reshape", "close flat", "close_flat"),
        node("Gather", "weights session", "weight"),
        node("Unsqueeze", "near_credit beside", "near_credit_each"),
        node("Mul", "weight near_credit_each", "credit_of_close"),
        node("Reshape", "credit_of_close flat", "credit_flat"),
        node("Concat", "close_flat session", "index", axis=1),
        node("Concat", "credit_flat own_credit", "credit", axis=1),
        # Summed in a row of the catalogue for each request; only what was touched is more than
        # popularity.
        node("Shape", "rows", "batch_of", end=1),
        node("Concat", "batch_of size", "whole", axis=0),
        node("ConstantOfShape", "whole", "zeros"),
        node("ScatterElements", "zeros index credit", "total", axis=1, reduction="add"),
        node("GatherElements", "total index", "touched", axis=1),
        node("Div", "touched floor", "in_floors"),
        node("Add", "in_floors one", "raised"),
        node("Log", "raised", "seen"),
        node("ScatterElements", "zeros index seen", "table", axis=1),
        node("Add", "table prior", "all_scores"),
        node("TopK", "all_scores answers_of_each", "scores best", axis=1),
    ]
