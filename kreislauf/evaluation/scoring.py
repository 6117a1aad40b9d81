"""Answers of an ONNX file, in process: the same file, and the same answers, as Triton's."""

import itertools
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from models import asking, text
from models.spec import Examples, ModelSpec, Tensors

BATCH = 32
"""Number of examples that are asked at once; more are not faster."""
REQUESTS = 200
"""Number of requests whose latency is measured."""
REPEATS = 3
"""Number of measurements of each latency, of which the fastest counts."""


def answer(onnx: Any, inputs: Tensors, batch: int = BATCH) -> Tensors:
    """Run `onnx` over all rows of `inputs`, `batch` at a time. It is a file, its content, or an
    onnxruntime.InferenceSession.

    Returns its outputs by name, in the same order.
    """
    import onnxruntime

    session = onnx
    if isinstance(onnx, Path | bytes):
        options = onnxruntime.SessionOptions()
        # Threads that wait for work by spinning take the cores from whoever else has some.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    used = [tensor.name for tensor in session.get_inputs()]

    def ask(request: Tensors) -> Tensors:
        return dict(zip(names, session.run(names, request), strict=True))

    return asking.in_batches(ask, {name: inputs[name] for name in used}, batch)


def baseline_scores(model_type: ModelSpec, rows: pl.DataFrame, examples: Examples) -> np.ndarray:
    """Scores, shape (n,), of a trivial baseline that is fitted on `rows` for this alone."""
    with tempfile.TemporaryDirectory() as folder:
        onnx = model_type.baseline(rows, Path(folder))
        return model_type.score(examples, answer(onnx, examples.inputs))


def p95(onnx: Path, inputs: Tensors) -> float:
    """95th percentile of `latencies`, in milliseconds; 0 without inputs."""
    if not len(next(iter(inputs.values()))):
        return 0.0
    return float(np.quantile(latencies(onnx, inputs), 0.95))


def latencies(onnx: Path, inputs: Tensors) -> np.ndarray:
    """Milliseconds of each of `REQUESTS` requests with one example, drawn evenly from `inputs`, on
    one thread.

    Each is the fastest of `REPEATS`, in turn: other programs on the machine only add to it.
    """
    session = one_thread(onnx)
    used = [tensor.name for tensor in session.get_inputs()]
    positions = np.linspace(0, len(inputs[used[0]]) - 1, REQUESTS).astype(int)
    drawn = text.unify({name: inputs[name][positions] for name in used})
    seconds = np.empty((REPEATS, REQUESTS))
    for repeat, column in itertools.product(range(REPEATS), range(REQUESTS)):
        request = {name: array[column : column + 1] for name, array in drawn.items()}
        began = time.perf_counter()
        session.run(None, request)
        seconds[repeat, column] = time.perf_counter() - began
    return seconds.min(0) * 1000


def one_thread(onnx: Path) -> Any:
    """An onnxruntime.InferenceSession that computes on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
