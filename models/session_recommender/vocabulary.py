"""The edges of an ONNX file: raw article ids in, raw article ids out, as whole numbers or text."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from models import text
from models.session_recommender.features import INPUTS, LENGTH, Catalogue


def with_vocabulary(model: onnx.ModelProto, catalogue: Catalogue) -> onnx.ModelProto:
    """Put raw id -> row before the graph and row -> raw id after it.

    The graph takes `rows`, `types` and `times` and gives `best` and `scores`.
    """
    graph = model.graph
    encode = helper.make_node(
        "LabelEncoder",
        ["article_ids"],
        ["rows"],
        domain="ai.onnx.ml",
        keys_tensor=numpy_helper.from_array(catalogue.raw()[: len(catalogue.ids)], "keys"),
        values_tensor=numpy_helper.from_array(np.arange(len(catalogue.ids)), "values"),
        default_tensor=numpy_helper.from_array(np.array([catalogue.nothing]), "default"),
    )
    decode = helper.make_node("Gather", ["raw", "best"], ["answers"])
    nodes = [encode, *graph.node, decode]
    graph.ClearField("node")
    graph.node.extend(nodes)
    graph.initializer.append(numpy_helper.from_array(catalogue.raw(), "raw"))
    graph.ClearField("input")
    id_type = TensorProto.STRING if text.is_text(catalogue.ids) else TensorProto.INT64
    types = [id_type, TensorProto.INT64, TensorProto.INT64]
    graph.input.extend(
        helper.make_tensor_value_info(name, dtype, ["batch", LENGTH])
        for name, dtype in zip(INPUTS, types, strict=True)
    )
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", LENGTH])
    answers = helper.make_tensor_value_info("answers", id_type, ["batch", LENGTH])
    graph.ClearField("output")
    graph.output.extend([answers, scores])
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 4))
    return model
