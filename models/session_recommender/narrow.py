"""A graph that computes only the columns which some session of a batch needs."""

import numpy as np
import onnx
from onnx import helper, numpy_helper

from models.session_recommender.features import LENGTH

FEWEST = 3
"""Columns that remain at least: torch treats sizes of 0 and 1 otherwise than larger ones, and the
pauses between events have a column less."""
PREFIX = "narrow_"
"""Begins the names of what is put before the graph."""


def narrow(model: onnx.ModelProto, inputs: list[str], nothing: int) -> onnx.ModelProto:
    """Cut the last columns off, as far as they hold no known article of any session.

    `inputs` are those of the graph, int64 (batch, n) each, FEWEST <= n <= LENGTH. The first has
    rows of the catalogue, where `nothing` stands for no known article. Afterwards the graph takes
    (batch, LENGTH). The answers stay the same.
    """
    graph = model.graph
    for node in graph.node:
        node.input[:] = [PREFIX + name if name in inputs else name for name in node.input]
    constants = {
        "nothing": np.array(nothing),
        "number": np.arange(1, LENGTH + 1),
        "zero": np.array(0),
        "flat": np.array([-1]),
        "fewest": np.array([FEWEST]),
        "start": np.array([0]),
        "axis": np.array([1]),
    }
    graph.initializer.extend(
        numpy_helper.from_array(value, PREFIX + name) for name, value in constants.items()
    )
    nodes = [
        _node("Less", [inputs[0], PREFIX + "nothing"], "is_known"),
        _node("Where", [PREFIX + "is_known", PREFIX + "number", PREFIX + "zero"], "numbers"),
        _node("Reshape", [PREFIX + "numbers", PREFIX + "flat"], "each"),
        # A batch of no session has a maximum, too.
        _node("Concat", [PREFIX + "each", PREFIX + "fewest"], "widths", axis=0),
        _node("ReduceMax", [PREFIX + "widths"], "width", keepdims=1),
    ]
    limits = [PREFIX + "start", PREFIX + "width", PREFIX + "axis"]
    nodes += [_node("Slice", [name, *limits], name) for name in inputs]
    nodes += graph.node
    graph.ClearField("node")
    graph.node.extend(nodes)
    return model


def _node(operator: str, inputs: list[str], output: str, **attributes) -> onnx.NodeProto:
    """A node whose output has the prefix."""
    return helper.make_node(operator, inputs, [PREFIX + output], **attributes)
