"""Export of torch modules to ONNX graphs."""

from typing import Any

import onnx
import torch
from onnxscript.optimizer import optimize
from torch import nn

from models.runtime import silence_libraries
from models.spec import OPSET


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
