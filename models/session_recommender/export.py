"""The module to one self-contained ONNX file, raw article ids to raw article ids, and the proof
that both agree."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnxscript.optimizer import optimize

from models.session_recommender.features import INPUTS, LENGTH, PADDING, Catalogue
from models.session_recommender.runtime import quiet
from models.session_recommender.scorer import Scorer
from models.session_recommender.vocabulary import OPSET, with_vocabulary
from models.spec import MAX_BATCH, Parity

TOLERANCE = 1e-5
"""Of scores, relative: float32 sums of a few hundred terms in another order differ by about
1e-6."""
SIZES = range(1, MAX_BATCH + 1)
OVERLAP = 0.95
"""One of 20 answers may differ: a tie at rank 20."""


def export(scorer: Scorer, catalogue: Catalogue, path: Path) -> Path:
    """Writes `scorer` with the vocabulary before and after it; the batch dimension is free."""
    example = torch.full((2, LENGTH), catalogue.nothing)
    nothing = torch.full((2, LENGTH), PADDING)
    batch = torch.export.Dim("batch")
    with quiet():
        program = torch.onnx.export(
            scorer.eval(),
            (example, nothing, nothing.clone()),
            dynamo=True,
            opset_version=OPSET,
            input_names=["rows", "types", "times"],
            output_names=["best", "scores"],
            dynamic_shapes=[{0: batch}, {0: batch}, {0: batch}],
            optimize=False,
            verbose=False,
        )
        assert program is not None
        # By default there are more passes, which take four times as long and leave hardly less.
        optimize(program.model, num_iterations=1, onnx_shape_inference=False)
    model = with_vocabulary(program.model_proto, catalogue)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def parity(scorer: Scorer, catalogue: Catalogue, path: Path, inputs: list[np.ndarray]) -> Parity:
    """Compares module and file on `inputs`, raw ids, kinds and times, int64 (n, 20) each, and on
    sessions of no, one and 20 events, in batches of every size that a server may make."""
    inputs = [np.concatenate([_edges(values), values]) for values in inputs]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    ids, expected = _module_answers(scorer, catalogue, inputs)
    overlaps = []
    differences = []
    start = 0
    n = len(ids)
    # These are 2,080 rows; more inputs follow in the largest batches.
    more = max(0, -(-(n - sum(SIZES)) // MAX_BATCH))
    for size in [*SIZES, *[MAX_BATCH] * more]:
        rows = np.arange(start, start + size) % n
        answers, scores = session.run(
            ["answers", "scores"],
            {name: values[rows] for name, values in zip(INPUTS, inputs, strict=True)},
        )
        overlaps.append((ids[rows, :, None] == answers[:, None, :]).any(2).mean(1).min())
        differences.append(
            (np.abs(scores - expected[rows]) / np.maximum(np.abs(expected[rows]), 1)).max()
        )
        start += size
    overlap = float(min(overlaps))
    difference = float(max(differences))
    passed = overlap >= OVERLAP and difference <= TOLERANCE
    return Parity(
        inputs=n,
        largest_batch=MAX_BATCH,
        min_overlap=overlap,
        max_difference=difference,
        passed=passed,
    )


def _module_answers(
    scorer: Scorer, catalogue: Catalogue, inputs: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Raw ids and scores by the module, (n, 20) each."""
    parts = []
    for start in range(0, len(inputs[0]), MAX_BATCH):
        articles, *others = (values[start : start + MAX_BATCH] for values in inputs)
        with torch.inference_mode():
            parts.append(scorer(*map(torch.from_numpy, (catalogue.rows(articles), *others))))
    best, scores = (torch.cat(part).numpy() for part in zip(*parts, strict=True))
    return catalogue.raw()[best], scores


def _edges(values: np.ndarray) -> np.ndarray:
    """No event, one, and `LENGTH` of them, int64 (3, 20)."""
    nothing = np.full(LENGTH, PADDING)
    return np.stack([nothing, np.r_[values[0, :1], nothing[1:]], np.resize(values[:, 0], LENGTH)])
