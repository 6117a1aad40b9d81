"""The trivial model: the best single feature, upwards or downwards, in the same ONNX contract.
Categories do not count.

It is fitted often, so it does without torch.
"""

from pathlib import Path

import numpy as np
import onnx
import polars as pl
from onnx import helper, numpy_helper

from models.search_ranker import metrics
from models.search_ranker.features import NOWHERE, Lists, lists
from models.search_ranker.graph import with_items
from models.search_ranker.schema import FEATURES, RESULTS

MISSING = -1e31
"""Score of a result that lacks the feature: below all that have it."""
MAX_LISTS = 2_000
"""Maximum lists on which the features are compared, evenly drawn."""


def build(rows: pl.DataFrame, folder: Path) -> Path:
    """Choose the feature on `rows` and write `baseline.onnx` to `folder`.

    Raises ValueError if there are no rows.
    """
    if rows.is_empty():
        raise ValueError("No rows to fit the baseline on: widen the window.")
    width = int(rows["features"].list.len().max())  # type: ignore[arg-type]
    return write(lists(rows, width, 0), FEATURES, folder)


def write(learnt: Lists, width: int, folder: Path) -> Path:
    """The same for lists, as a file whose input has `width` features."""
    path = folder / "baseline.onnx"
    onnx.save(with_items(graph(*best_feature(learnt)), width), path)
    return path


def best_feature(learnt: Lists) -> tuple[int, float]:
    """Number of the feature that alone orders the lists best, and 1, or -1 where less is better."""
    drawn = np.unique(np.linspace(0, max(len(learnt) - 1, 0), MAX_LISTS).astype(int))
    drawn = drawn[drawn < len(learnt)]
    some = learnt.take(drawn)
    best = (-1.0, 0, 1.0)
    for feature in range(learnt.features.shape[2]):
        values = some.features[:, :, feature]
        if np.isnan(values).all():
            continue
        for sign in (1.0, -1.0):
            scores = np.where(np.isnan(values), MISSING, sign * values)
            scores = np.where(some.present, scores, NOWHERE)
            order = np.argsort(-scores, axis=1, kind="stable")
            ordered = np.take_along_axis(some.gains, order, 1)
            quality = float(metrics.ndcg(ordered, some.gains).mean())
            if quality > best[0]:
                best = (quality, feature, sign)
    return best[1:]


def graph(feature: int, sign: float) -> onnx.GraphProto:
    """Graph from `features` and `present` to `order` and `scores`."""
    constants = {
        "feature": np.array(feature),
        "sign": np.float32(sign),
        "missing": np.float32(MISSING),
        "nowhere": np.float32(NOWHERE),
        "results": np.array([RESULTS]),
    }
    initializers = [
        numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()
    ]
    nodes = [
        helper.make_node("Gather", ["features", "feature"], ["raw"], axis=2),
        helper.make_node("Mul", ["raw", "sign"], ["signed"]),
        helper.make_node("IsNaN", ["raw"], ["is_missing"]),
        helper.make_node("Where", ["is_missing", "missing", "signed"], ["known"]),
        helper.make_node("Where", ["present", "known", "nowhere"], ["all"]),
        helper.make_node("TopK", ["all", "results"], ["scores", "order"], axis=1),
    ]
    return helper.make_graph(nodes, "feature", [], [], initializers)
