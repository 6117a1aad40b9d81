"""Export of the scorer to one self-contained ONNX file, and the proof that both agree."""

from pathlib import Path

import numpy as np
import onnx
import torch

from models.onnx_export import exported
from models.parity import measure, relative, session_of
from models.search_ranker import metrics
from models.search_ranker.features import INPUTS, NO_ITEM, Lists
from models.search_ranker.graph import with_items
from models.search_ranker.network import Scorer
from models.search_ranker.schema import RESULTS
from models.spec import MAX_BATCH, Parity, Tensors

TOLERANCE = 1e-4
"""Maximum relative difference of scores.

float32 sums of some hundred terms, through a few layers, in another order differ by about 1e-5.
"""
OVERLAP = 1.0
"""Minimum share of results that are where the module has one of the same score: ties may swap."""


def export(scorer: Scorer, width: int, path: Path) -> Path:
    """Write `scorer` with ids before and after it; the batch is free, an input has `width`
    features."""
    features = torch.zeros(2, RESULTS, width)
    present = torch.ones(2, RESULTS, dtype=torch.bool)
    batch = {0: torch.export.Dim("batch")}
    graph = exported(
        scorer, (features, present), ["features", "present"], ["order", "scores"], [batch, batch]
    )
    onnx.save(with_items(graph.graph, width), path)
    return path


def parity(scorer: Scorer, path: Path, lists: Lists) -> Parity:
    """Compare module and file, in batches of every size that a server may make.

    Lists of no result, of one, and without any feature are added to `lists`.
    """
    items, features = with_edges(lists)
    order, expected = module_answers(scorer, items, features)
    by_place = np.empty_like(expected)
    np.put_along_axis(by_place, order, expected, 1)

    def compare(rows: np.ndarray, outputs: Tensors) -> tuple[np.ndarray, np.ndarray]:
        moved = metrics.reordered(items[rows], by_place[rows], outputs["answers"])
        is_same = relative(moved, expected[rows]) <= TOLERANCE
        return is_same.mean(1), relative(outputs["scores"], expected[rows]).max(1)

    inputs = dict(zip(INPUTS, (items, features), strict=True))
    return measure(session_of(path), inputs, compare, OVERLAP, TOLERANCE)


def module_answers(
    scorer: Scorer, items: np.ndarray, features: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Order and scores by the module, (n, RESULTS) each."""
    outputs = []
    for start in range(0, len(items), MAX_BATCH):
        present = torch.from_numpy(items[start : start + MAX_BATCH] != NO_ITEM)
        with torch.inference_mode():
            batch = torch.from_numpy(features[start : start + MAX_BATCH])
            outputs.append(scorer(batch, present))
    order, scores = (torch.cat(tensors).numpy() for tensors in zip(*outputs, strict=True))
    return order, scores


def with_edges(lists: Lists) -> tuple[np.ndarray, np.ndarray]:
    """Items and features of the lists, three others before them."""
    items = np.concatenate([lists.items[:1]] * 3 + [lists.items])
    features = np.concatenate([lists.features[:1]] * 3 + [lists.features])
    items[0] = NO_ITEM
    items[1, 1:] = NO_ITEM
    features[:3] = np.where((np.arange(3) == 1)[:, None, None], features[:3], np.nan)
    return items, features
