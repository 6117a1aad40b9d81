"""Tensors on their way to Triton and back, for clients with and without an event loop."""

from typing import Any

import numpy as np

from models import text
from models.spec import Tensors


def encode(inputs: Tensors) -> list[Any]:
    """A tritonclient.grpc.InferInput for each tensor; text travels as UTF-8.

    Raises ValueError for objects that are no text.
    """
    from tritonclient.grpc import InferInput
    from tritonclient.utils import np_to_triton_dtype

    tensors = []
    for name, array in text.unify(inputs).items():
        tensor = InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        tensor.set_data_from_numpy(np.ascontiguousarray(array))
        tensors.append(tensor)
    return tensors


def wanted(metadata: Any, inputs: Tensors) -> Tensors:
    """Those of the inputs that a version takes, by Triton's metadata of it: an earlier version may
    take fewer than the model type has now."""
    return {tensor.name: inputs[tensor.name] for tensor in metadata.inputs if tensor.name in inputs}


def decode(result: Any) -> Tensors:
    """The tensors of a tritonclient.grpc.InferResult, by name; text as str objects.

    Raises ValueError for text that is not UTF-8.
    """
    outputs = result.get_response().outputs
    return text.unify({output.name: result.as_numpy(output.name) for output in outputs})
