"""The trivial model: naive Bayes on whole words, in the same ONNX contract.

It is fitted often, so it does without torch.
"""

from pathlib import Path

import numpy as np
import onnx
import polars as pl
from onnx import TensorProto, helper, numpy_helper

from models.spec import OPSET
from models.support_answers.features import with_answer

SMOOTHING = 0.1
"""What is added to the count of each word with each intent."""
SURE = 0.5
"""Least probability of what is not handed over."""


def build(rows: pl.DataFrame, folder: Path) -> Path:
    """Fit on `rows` and write `baseline.onnx` to `folder`. Raises ValueError without questions."""
    answered = with_answer(rows)
    if answered.is_empty():
        raise ValueError("No question of these rows has a known answer: widen the window.")
    path = folder / "baseline.onnx"
    onnx.save(graph(*weights(answered)), path)
    return path


def weights(answered: pl.DataFrame) -> tuple[list[str], list[str], np.ndarray]:
    """Words, intents, and what each word adds to the score of each intent, float32.

    The last row is what an unknown word adds, nothing. A question's score begins at 0: intents are
    equally likely until a word is read.
    """
    each = answered.select("intent", word=pl.col("text").str.split(" ")).explode("word")
    each = each.filter(pl.col("word") != "")
    words = each["word"].unique().sort()
    intents = answered["intent"].unique().sort()
    counts = np.full((len(words), len(intents)), SMOOTHING)
    row, column = (
        each[name].cast(pl.Enum(values)).to_physical().to_numpy()
        for name, values in (("word", words), ("intent", intents))
    )
    np.add.at(counts, (row, column), 1)
    logs = np.log(counts / counts.sum(0))
    logs -= logs.mean(1, keepdims=True)
    table = np.concatenate([logs, np.zeros((1, len(intents)))]).astype(np.float32)
    return words.to_list(), intents.to_list(), table


def graph(words: list[str], intents: list[str], table: np.ndarray) -> onnx.ModelProto:
    """The graph: the rows of the words of a question are summed."""
    constants = {
        "flat": np.array([-1]),
        "table": table,
        "every": np.array([1]),
        "sure": np.float32(SURE),
        "names": np.array(intents, object),
    }
    nodes = [
        helper.make_node("Reshape", ["text", "flat"], ["texts"]),
        helper.make_node("StringSplit", ["texts"], ["words", "counts"]),
        helper.make_node(
            "LabelEncoder",
            ["words"],
            ["rows"],
            domain="ai.onnx.ml",
            keys_strings=words,
            values_int64s=list(range(len(words))),
            default_int64=len(words),
        ),
        helper.make_node("Gather", ["table", "rows"], ["each"]),
        helper.make_node("ReduceSum", ["each", "every"], ["scores"], keepdims=0),
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
        helper.make_node("ReduceMax", ["probabilities", "every"], ["confidence"]),
        helper.make_node("ArgMax", ["probabilities"], ["best"], axis=1),
        helper.make_node("Gather", ["names", "best"], ["intent"]),
        helper.make_node("Less", ["confidence", "sure"], ["hand_over"]),
    ]
    types = {
        "intent": TensorProto.STRING,
        "confidence": TensorProto.FLOAT,
        "hand_over": TensorProto.BOOL,
    }
    body = helper.make_graph(
        nodes,
        "naive_bayes",
        [helper.make_tensor_value_info("text", TensorProto.STRING, ["batch", 1])],
        [helper.make_tensor_value_info(name, dtype, ["batch", 1]) for name, dtype in types.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(body, opset_imports=opsets, ir_version=10)
