"""What a served file loses and gains with fewer bits: the same graph with float16 tables, and with
8-bit products."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

LARGE = 100_000
"""Numbers in a tensor that is worth the change."""


def variants(source: Path, folder: Path) -> dict[str, Path]:
    """Files in `folder` by what they are; `source` itself is the first."""
    return {"float32": source} | {
        name: change(source, folder / f"{name}.onnx")
        for name, change in {"float16": float16, "int8": int8}.items()
    }


def float16(source: Path, target: Path) -> Path:
    """Every large float32 tensor stored in half the bytes; what is computed stays float32."""
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
    """Products with constant matrices in 8 bits, with one scale for each column; what is on the
    other side is quantised as it comes."""
    quantize_dynamic(
        source,
        target,
        op_types_to_quantize=["MatMul"],
        per_channel=True,
        weight_type=QuantType.QInt8,
    )
    return target
