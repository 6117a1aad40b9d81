"""The ONNX file from its parts: reader, n-grams and networks; and the proof that it is right."""

from functools import cache
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, compose, helper, numpy_helper

from models.onnx_export import exported
from models.parity import measure, session_of
from models.spec import MAX_BATCH, OPSET, Parity, Tensors
from models.support_answers import reader
from models.support_answers.network import ServedNetwork
from models.support_answers.ngrams import Ngrams
from models.support_answers.reader import LETTERS

TOLERANCE = 1e-4
"""Maximum difference of confidences: float32 sums of hundreds of terms in another order."""
SAME = 0.99
"""Minimum share of equal intents and decisions; ties may fall either way."""


def ngrams_graph(buckets: int) -> onnx.ModelProto:
    """Graph from `text`, text (batch, 1), to `rows`, int64 (batch, many).

    Rows 1 to `buckets` of the table, those of the n-grams of a question, and then 0.
    """
    read = joined(reader.graph(), hashing_graph(), "letters")
    return joined(read, rows_graph(buckets), "hashes")


@cache
def hashing_graph() -> onnx.ModelProto:
    """Graph from `letters` to `hashes`. It is always the same, and making it takes seconds."""
    example = torch.zeros((2, 3, LETTERS), dtype=torch.int64)
    dynamic = {0: torch.export.Dim("batch"), 1: torch.export.Dim("words")}
    return exported(Ngrams(), (example,), ["letters"], ["hashes"], [dynamic])


def rows_graph(buckets: int) -> onnx.ModelProto:
    """Graph from `hashes` to `rows`: none is moved to the end, and cut off where all are none."""
    constants = {
        "zero": np.array(0),
        "buckets": np.array(buckets),
        "one": np.array(1),
        "axis": np.array([1]),
        "least": np.array([1]),
    }
    nodes = [
        helper.make_node("Greater", ["hashes", "zero"], ["is_hash"]),
        helper.make_node("Mod", ["hashes", "buckets"], ["bucket"]),
        helper.make_node("Add", ["bucket", "one"], ["row"]),
        helper.make_node("Where", ["is_hash", "row", "zero"], ["sparse_rows"]),
        helper.make_node("Cast", ["is_hash"], ["ones"], to=TensorProto.INT64),
        helper.make_node("ReduceSum", ["ones", "axis"], ["counts"]),
        helper.make_node("ReduceMax", ["counts"], ["longest"], keepdims=0),
        helper.make_node("Max", ["longest", "least"], ["width"]),
        helper.make_node("TopK", ["sparse_rows", "width"], ["rows", "places"], axis=1),
    ]
    body = helper.make_graph(
        nodes,
        "rows",
        [helper.make_tensor_value_info("hashes", TensorProto.INT64, ["batch", "places"])],
        [helper.make_tensor_value_info("rows", TensorProto.INT64, ["batch", "many"])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)


def export(served: ServedNetwork, ngrams: onnx.ModelProto, intents: list[str], path: Path) -> Path:
    """Write the whole graph, whose intents are names, to `path`."""
    example = torch.ones((2, 5), dtype=torch.int64)
    dynamic = {0: torch.export.Dim("batch"), 1: torch.export.Dim("many")}
    outputs = ["best", "confidence", "hand_over"]
    network = exported(served, (example,), ["rows"], outputs, [dynamic])
    model = joined(ngrams, network, "rows")
    name_intents(model, intents)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def name_intents(model: onnx.ModelProto, intents: list[str]) -> None:
    """Give the name of the best intent as `intent`, in place of its position `best`."""
    graph = model.graph
    names = np.array(intents, object)
    graph.initializer.append(numpy_helper.from_array(names, "names"))
    graph.node.append(helper.make_node("Gather", ["names", "best"], ["intent"]))
    types = {
        "intent": TensorProto.STRING,
        "confidence": TensorProto.FLOAT,
        "hand_over": TensorProto.BOOL,
    }
    graph.ClearField("output")
    graph.output.extend(
        helper.make_tensor_value_info(name, dtype, ["batch", 1]) for name, dtype in types.items()
    )


def joined(first: onnx.ModelProto, second: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """Both graphs, of which the second takes `name` from the first."""
    second = compose.add_prefix(second, f"{name}/", rename_inputs=False, rename_outputs=False)
    return compose.merge_models(first, second, io_map=[(name, name)])


def bags(ngrams: onnx.ModelProto, texts: np.ndarray) -> list[np.ndarray]:
    """Rows of the n-grams of each text (n, 1), as many as it has: int32."""
    session = session_of(ngrams)
    result: list[np.ndarray] = []
    for start in range(0, len(texts), MAX_BATCH):
        (rows,) = session.run(["rows"], {"text": texts[start : start + MAX_BATCH]})
        result.extend(row[row > 0] for row in rows.astype(np.int32))
    return result


def parity(
    served: ServedNetwork,
    ngrams: onnx.ModelProto,
    intents: list[str],
    path: Path,
    texts: np.ndarray,
) -> Parity:
    """Compare module and file on `texts` (n, 1), in batches of every size a server may make."""
    names = np.array(intents, object)
    session = session_of(ngrams)

    def compare(positions: np.ndarray, outputs: Tensors) -> tuple[np.ndarray, np.ndarray]:
        (rows,) = session.run(["rows"], {"text": texts[positions]})
        with torch.inference_mode():
            best, confidence, hand_over = (o.numpy() for o in served(torch.from_numpy(rows)))
        is_same = (outputs["intent"] == names[best]) & (outputs["hand_over"] == hand_over)
        return is_same[:, 0], np.abs(outputs["confidence"] - confidence)[:, 0]

    return measure(session_of(path), {"text": texts}, compare, SAME, TOLERANCE, np.mean)
