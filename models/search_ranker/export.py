"""Export of the scorer to one self-contained ONNX file, and the proof that both agree."""

from pathlib import Path

import numpy as np
import onnx
import torch

from models.onnx_export import exported
from models.parity import measure, relative, session_of
from models.search_ranker import metrics
from models.search_ranker.features import INPUTS, NO_CATEGORY, NO_ITEM, Lists
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
    examples = {
        "features": torch.zeros(2, RESULTS, width),
        "present": torch.ones(2, RESULTS, dtype=torch.bool),
    }
    vocabulary = scorer.vocabulary
    if vocabulary.columns:
        shape = (2, RESULTS, len(vocabulary.columns))
        examples["numbers"] = torch.zeros(shape, dtype=torch.int64)
    batch = {0: torch.export.Dim("batch")}
    graph = exported(
        scorer,
        tuple(examples.values()),
        [*examples],
        ["order", "scores"],
        [batch] * len(examples),
    )
    onnx.save(with_items(graph.graph, width, vocabulary), path)
    return path


def parity(scorer: Scorer, path: Path, lists: Lists) -> Parity:
    """Compare module and file, in batches of every size that a server may make.

    Lists of no result, of one, and without any feature or known category are added to `lists`.
    """
    inputs = with_edges(lists)
    items = inputs[INPUTS[0]]
    order, expected = module_answers(scorer, inputs)
    by_place = np.empty_like(expected)
    np.put_along_axis(by_place, order, expected, 1)

    def compare(rows: np.ndarray, outputs: Tensors) -> tuple[np.ndarray, np.ndarray]:
        moved = metrics.reordered(items[rows], by_place[rows], outputs["answers"])
        is_same = relative(moved, expected[rows]) <= TOLERANCE
        return is_same.mean(1), relative(outputs["scores"], expected[rows]).max(1)

    return measure(session_of(path), inputs, compare, OVERLAP, TOLERANCE)


def module_answers(scorer: Scorer, inputs: Tensors) -> tuple[np.ndarray, np.ndarray]:
    """Order and scores by the module for the file's inputs, (n, RESULTS) each."""
    items, features, categories = (inputs[name] for name in INPUTS)
    present = items != NO_ITEM
    numbers = scorer.vocabulary.numbers(categories)
    outputs = []
    for start in range(0, len(items), MAX_BATCH):
        batch = [
            torch.from_numpy(values[start : start + MAX_BATCH])
            for values in (features, present, numbers)
        ]
        with torch.inference_mode():
            outputs.append(scorer(*batch))
    order, scores = (torch.cat(tensors).numpy() for tensors in zip(*outputs, strict=True))
    return order, scores


def with_edges(lists: Lists) -> Tensors:
    """Inputs of the lists, with three others before them."""
    items, features, categories = (
        np.concatenate([values[:1]] * 3 + [values])
        for values in (lists.items, lists.features, lists.categories)
    )
    items[0] = NO_ITEM
    items[1, 1:] = NO_ITEM
    features[:3] = np.where((np.arange(3) == 1)[:, None, None], features[:3], np.nan)
    categories[0] = NO_CATEGORY
    categories[2] = "a category that no training knows"
    return dict(zip(INPUTS, (items, features, categories), strict=True))
