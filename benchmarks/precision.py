"""Variants of a served file with fewer bits: float16 tables, and 8-bit products."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

LARGE = 100_000
"""Minimum numbers of a tensor that is changed."""


def variants(source: Path, folder: Path) -> dict[str, Path]:
    """Files in `folder` by what they are; `source` itself is the first."""
    return {
        "float32": source,
        "float16": float16(source, folder / "float16.onnx"),
        "int8": int8(source, folder / "int8.onnx"),
    }


def float16(source: Path, target: Path) -> Path:
    """Store every large float32 tensor in half the bytes; products stay float32."""
    model = onnx.load(source)
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and np.prod(tensor.dims) >= LARGE:
            name = tensor.name
            half = numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(half, f"{name}_half"))
            casts.append(helper.make_node("Cast", [f"{name}_half"], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    model.graph.ClearField("node")
    model.graph.node.extend(nodes)
    onnx.save(model, target)
    return target


def int8(source: Path, target: Path) -> Path:
    """Compute products with constant matrices in 8 bits, with one scale for each column.

    The other side is quantised as it comes.
    """
    quantize_dynamic(
        source,
        target,
        op_types_to_quantize=["MatMul"],
        per_channel=True,
        weight_type=QuantType.QInt8,
    )
    return target
