"""The ONNX contract around a graph that orders: ids before and after it, categories before it.

Model and baseline share it. Inputs are `items`, `features` and `categories`, outputs `answers` and
`scores`.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from models.search_ranker.features import INPUTS, NO_ITEM
from models.search_ranker.schema import CATEGORIES, RESULTS
from models.search_ranker.vocabulary import Vocabulary
from models.spec import OPSET


def with_items(
    body: onnx.GraphProto, width: int, vocabulary: Vocabulary | None = None
) -> onnx.ModelProto:
    """The file of a graph from `features` and `present`, bool (batch, RESULTS), to `order`, int64
    (batch, RESULTS), positions with the best first, and `scores`.

    It takes the ids of a list, and answers them in that order; `width` is its number of features.
    If the `vocabulary` knows anything, the graph takes `numbers`, too.
    """
    ids, values, words = INPUTS
    constants = [numpy_helper.from_array(np.array(NO_ITEM, object), "no_item")]
    before = [
        helper.make_node("Equal", [ids, "no_item"], ["is_padding"]),
        helper.make_node("Not", ["is_padding"], ["present"]),
    ]
    if vocabulary and vocabulary.columns:
        nodes, more = vocabulary.nodes(words, "numbers")
        before += nodes
        constants += more
    after = [helper.make_node("GatherElements", [ids, "order"], ["answers"], axis=1)]
    shape: list[str | int | None] = ["batch", RESULTS]
    graph = helper.make_graph(
        [*before, *body.node, *after],
        "search_ranker",
        [
            helper.make_tensor_value_info(ids, TensorProto.STRING, shape),
            helper.make_tensor_value_info(values, TensorProto.FLOAT, [*shape, width]),
            helper.make_tensor_value_info(words, TensorProto.STRING, [*shape, CATEGORIES]),
        ],
        [
            helper.make_tensor_value_info("answers", TensorProto.STRING, shape),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, shape),
        ],
        [*constants, *body.initializer],
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", 4)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    onnx.checker.check_model(model)
    return model
