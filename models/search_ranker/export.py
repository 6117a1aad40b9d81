"""Export of the scorer to one self-contained ONNX file, and the proof that both agree."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnxscript.optimizer import optimize

from models.search_ranker import metrics
from models.search_ranker.features import INPUTS, NO_ITEM, Lists
from models.search_ranker.graph import OPSET, with_items
from models.search_ranker.network import Scorer
from models.search_ranker.schema import RESULTS
from models.spec import MAX_BATCH, Parity

TOLERANCE = 1e-4
"""Maximum relative difference of scores.

float32 sums of some hundred terms, through a few layers, in another order differ by about 1e-5.
"""
SIZES = range(1, MAX_BATCH + 1)
"""Sizes of a batch that are compared at least once."""
OVERLAP = 1.0
"""Minimum share of results that are where the module has one of the same score: ties may swap."""


def export(scorer: Scorer, width: int, path: Path) -> Path:
    """Write `scorer` with ids before and after it; the batch is free, an input has `width`
    features."""
    features = torch.zeros(2, RESULTS, width)
    present = torch.ones(2, RESULTS, dtype=torch.bool)
    batch = torch.export.Dim("batch")
    program = torch.onnx.export(
        scorer.eval(),
        (features, present),
        dynamo=True,
        opset_version=OPSET,
        input_names=["features", "present"],
        output_names=["order", "scores"],
        dynamic_shapes=[{0: batch}, {0: batch}],
        optimize=False,
        verbose=False,
    )
    assert program is not None
    optimize(program.model, num_iterations=1, onnx_shape_inference=False)
    onnx.save(with_items(program.model_proto.graph, width), path)
    return path


def parity(scorer: Scorer, path: Path, lists: Lists) -> Parity:
    """Compare module and file, in batches of every size that a server may make.

    Lists of no result, of one, and without any feature are added to `lists`.
    """
    items, features = with_edges(lists)
    order, expected = module_answers(scorer, items, features)
    by_place = np.empty_like(expected)
    np.put_along_axis(by_place, order, expected, 1)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    overlaps = []
    differences = []
    for rows in batches(len(items)):
        batch = dict(zip(INPUTS, (items[rows], features[rows]), strict=True))
        answers, scores = session.run(["answers", "scores"], batch)
        scale = np.maximum(np.abs(expected[rows]), 1)
        moved = metrics.reordered(items[rows], by_place[rows], answers)
        is_same = np.abs(moved - expected[rows]) / scale <= TOLERANCE
        overlaps.append(is_same.mean(1).min())
        differences.append((np.abs(scores - expected[rows]) / scale).max())
    overlap = float(min(overlaps))
    difference = float(max(differences))
    return Parity(
        inputs=len(items),
        largest_batch=MAX_BATCH,
        min_overlap=overlap,
        max_difference=difference,
        passed=overlap >= OVERLAP and difference <= TOLERANCE,
    )


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


def batches(count: int) -> list[np.ndarray]:
    """Positions of `count` inputs in batches of every size, which begin again at the end."""
    # `SIZES` are 2,080 inputs; more follow in the largest batches.
    more = max(0, -(-(count - sum(SIZES)) // MAX_BATCH))
    sizes = [*SIZES, *[MAX_BATCH] * more]
    ends = np.cumsum(sizes)
    starts = ends - sizes
    return [np.arange(start, end) % count for start, end in zip(starts, ends, strict=True)]


def with_edges(lists: Lists) -> tuple[np.ndarray, np.ndarray]:
    """Items and features of the lists, three others before them."""
    items = np.concatenate([lists.items[:1]] * 3 + [lists.items])
    features = np.concatenate([lists.features[:1]] * 3 + [lists.features])
    items[0] = NO_ITEM
    items[1, 1:] = NO_ITEM
    features[:3] = np.where((np.arange(3) == 1)[:, None, None], features[:3], np.nan)
    return items, features
