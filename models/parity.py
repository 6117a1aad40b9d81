"""The proof that an ONNX file answers as what was exported."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from models.spec import MAX_BATCH, Parity, Tensors

SIZES = range(1, MAX_BATCH + 1)
"""Sizes of a batch that are compared at least once."""
Comparison = Callable[[np.ndarray, Tensors], tuple[np.ndarray, np.ndarray]]
"""Takes positions of inputs (n,) and the file's outputs for them; returns the share of equal
answers and the largest difference of scores of each, float64 (n,)."""


def session_of(model: Path | onnx.ModelProto) -> onnxruntime.InferenceSession:
    """A file or a graph in onnxruntime, on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    content = model.SerializeToString() if isinstance(model, onnx.ModelProto) else model
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def measure(
    session: onnxruntime.InferenceSession,
    inputs: Tensors,
    compare: Comparison,
    min_overlap: float = 1.0,
    tolerance: float = 0.0,
    summary: Callable[[np.ndarray], float] = np.min,
) -> Parity:
    """Ask a file for all `inputs`, in batches of every size that a server may make.

    It has passed if the `summary` of the overlaps is at least `min_overlap`, and no difference is
    above `tolerance`.
    """
    names = [output.name for output in session.get_outputs()]
    count = len(next(iter(inputs.values())))
    overlaps: list[np.ndarray] = []
    differences: list[np.ndarray] = []
    for rows in batches(count):
        asked = {name: values[rows] for name, values in inputs.items()}
        outputs = dict(zip(names, session.run(names, asked), strict=True))
        overlap, difference = compare(rows, outputs)
        overlaps.append(overlap)
        differences.append(difference)
    least_overlap = float(summary(np.concatenate(overlaps)))
    largest_difference = float(np.concatenate(differences).max())
    return Parity(
        inputs=count,
        largest_batch=MAX_BATCH,
        min_overlap=least_overlap,
        max_difference=largest_difference,
        passed=least_overlap >= min_overlap and largest_difference <= tolerance,
    )


def batches(count: int) -> list[np.ndarray]:
    """Positions of `count` inputs in batches of every size, which begin again at the end."""
    # `SIZES` are 2,080 inputs; more follow in the largest batches.
    more = max(0, -(-(count - sum(SIZES)) // MAX_BATCH))
    sizes = [*SIZES, *[MAX_BATCH] * more]
    ends = np.cumsum(sizes)
    starts = ends - sizes
    return [np.arange(start, end) % count for start, end in zip(starts, ends, strict=True)]


def relative(actual: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Difference of each value, relative where the expected one is above 1."""
    return np.abs(actual - expected) / np.maximum(np.abs(expected), 1)
