"""Export of torch modules to ONNX graphs, and what the proof that both agree needs."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnxscript.optimizer import optimize
from torch import nn

from models.runtime import silence_libraries
from models.spec import MAX_BATCH, OPSET

SIZES = range(1, MAX_BATCH + 1)
"""Sizes of a batch that are compared at least once."""


def exported(
    module: nn.Module,
    examples: tuple[torch.Tensor, ...],
    inputs: list[str],
    outputs: list[str],
    dynamic_shapes: list[dict[int, Any]],
) -> onnx.ModelProto:
    """A module as a graph; `dynamic_shapes` are the dimensions of each input that are free."""
    with silence_libraries():
        program = torch.onnx.export(
            module.eval(),
            examples,
            dynamo=True,
            opset_version=OPSET,
            input_names=inputs,
            output_names=outputs,
            dynamic_shapes=dynamic_shapes,
            optimize=False,
            verbose=False,
        )
        assert program is not None
        # By default there are more passes, which take four times as long and leave hardly less.
        optimize(program.model, num_iterations=1, onnx_shape_inference=False)
    return program.model_proto


def session_of(model: Path | onnx.ModelProto) -> onnxruntime.InferenceSession:
    """A file or a graph in onnxruntime, on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    content = model.SerializeToString() if isinstance(model, onnx.ModelProto) else model
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def batches(count: int) -> list[np.ndarray]:
    """Positions of `count` inputs in batches of every size, which begin again at the end."""
    # `SIZES` are 2,080 inputs; more follow in the largest batches.
    more = max(0, -(-(count - sum(SIZES)) // MAX_BATCH))
    sizes = [*SIZES, *[MAX_BATCH] * more]
    ends = np.cumsum(sizes)
    starts = ends - sizes
    return [np.arange(start, end) % count for start, end in zip(starts, ends, strict=True)]
