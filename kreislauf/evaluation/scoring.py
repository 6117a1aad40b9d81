"""Answers of an ONNX file, in process: the same file, and the same answers, as Triton's."""

import itertools
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from models.spec import Examples, ModelSpec, Tensors

BATCH = 256
REQUESTS = 200
REPEATS = 3


def answer(onnx: Path, inputs: Tensors, batch: int = BATCH) -> Tensors:
    """Run `onnx` over all rows of `inputs`, `batch` at a time; returns its outputs by name, in the
    same order."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # Threads that wait for work by spinning take the cores from whoever else has some.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    wanted = [tensor.name for tensor in session.get_inputs()]
    rows = len(inputs[wanted[0]])
    # An empty batch still has outputs, with no rows.
    starts = range(0, rows, batch) if rows else [0]
    parts = [
        session.run(names, {name: inputs[name][i : i + batch] for name in wanted}) for i in starts
    ]
    return {
        name: np.concatenate(arrays)
        for name, arrays in zip(names, zip(*parts, strict=True), strict=True)
    }


def baseline_scores(model_type: ModelSpec, rows: pl.DataFrame, examples: Examples) -> np.ndarray:
    """Scores, shape (n,), of a trivial baseline that is fitted on `rows` for this alone."""
    with tempfile.TemporaryDirectory() as folder:
        return model_type.score(
            examples, answer(model_type.baseline(rows, Path(folder)), examples.inputs)
        )


def p95(onnx: Path, inputs: Tensors) -> float:
    """Of `latencies`, in milliseconds; 0 without inputs."""
    return (
        float(np.quantile(latencies(onnx, inputs), 0.95))
        if len(next(iter(inputs.values())))
        else 0.0
    )


def latencies(onnx: Path, inputs: Tensors) -> np.ndarray:
    """Milliseconds of each of `REQUESTS` requests with one example, drawn evenly from `inputs`, on
    one thread.

    Each is the fastest of `REPEATS`, in turn: other programs on the machine only add to it.
    """
    session = one_thread(onnx)
    wanted = [tensor.name for tensor in session.get_inputs()]
    drawn = np.linspace(0, len(inputs[wanted[0]]) - 1, REQUESTS).astype(int)
    found = np.empty((REPEATS, REQUESTS))
    for repeat, (column, i) in itertools.product(range(REPEATS), enumerate(drawn)):
        request = {name: inputs[name][i : i + 1] for name in wanted}
        began = time.perf_counter()
        session.run(None, request)
        found[repeat, column] = time.perf_counter() - began
    return found.min(0) * 1000


def one_thread(onnx: Path) -> Any:
    """An onnxruntime.InferenceSession that computes on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
