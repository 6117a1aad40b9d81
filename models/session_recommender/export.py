"""The module to one self-contained ONNX file, raw article ids to raw article ids, and the proof that both agree."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper

from models.session_recommender.features import LENGTH, Catalogue
from models.session_recommender.module import Scorer, quiet
from models.spec import Parity

OPSET = 20
TOLERANCE = 1e-5
"""Of scores, relative: float32 sums of a few hundred terms in another order differ by about 1e-6."""
OVERLAP = 0.95
"""One of 20 answers may differ: a tie at rank 20."""


def export(scorer: Scorer, catalogue: Catalogue, path: Path) -> Path:
    """Writes `scorer` with the vocabulary before and after it; the batch dimension is free."""
    example = torch.full((2, LENGTH), catalogue.nothing)
    with quiet():
        program = torch.onnx.export(
            scorer.eval(),
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=["rows"],
            output_names=["best", "scores"],
            dynamic_shapes=[{0: torch.export.Dim("batch")}],
            verbose=False,
        )
    assert program is not None
    model = _with_vocabulary(program.model_proto, catalogue)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def _with_vocabulary(model: onnx.ModelProto, catalogue: Catalogue) -> onnx.ModelProto:
    """Puts raw id -> row before the graph and row -> raw id after it."""
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
    graph.input[0].CopyFrom(helper.make_tensor_value_info("article_ids", TensorProto.INT64, ["batch", LENGTH]))
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", LENGTH])
    answers = helper.make_tensor_value_info("answers", TensorProto.INT64, ["batch", LENGTH])
    graph.ClearField("output")
    graph.output.extend([answers, scores])
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 4))
    return model


def parity(scorer: Scorer, catalogue: Catalogue, path: Path, inputs: np.ndarray) -> Parity:
    """Compares module and file on `inputs`, raw ids int64 (n, 20), and on no, one and 20 events, in several batches."""
    edges = np.stack(
        [np.full(LENGTH, -1), np.r_[inputs[0, :1], np.full(LENGTH - 1, -1)], np.resize(inputs[:, 0], LENGTH)]
    )
    inputs = np.concatenate([edges, inputs])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    overlaps, differences, start = [], [], 0
    for size in (1, 2, 7, *[256] * len(inputs)):
        batch = inputs[start : start + size]
        if not len(batch):
            break
        answers, scores = session.run(["answers", "scores"], {"article_ids": batch})
        with torch.inference_mode():
            best, expected = scorer(torch.from_numpy(catalogue.rows(batch)))
        ids = catalogue.raw()[best.numpy()]
        overlaps.append((ids[:, :, None] == answers[:, None, :]).any(2).mean(1).min())
        size_of = np.maximum(np.abs(expected.numpy()), 1)
        differences.append((np.abs(scores - expected.numpy()) / size_of).max())
        start += size
    overlap, difference = float(min(overlaps)), float(max(differences))
    passed = overlap >= OVERLAP and difference <= TOLERANCE
    return Parity(inputs=len(inputs), min_overlap=overlap, max_difference=difference, passed=passed)
