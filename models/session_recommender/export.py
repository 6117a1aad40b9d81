"""Export of the scorer to one self-contained ONNX file, and the proof that both agree.

The file takes raw article ids and answers raw article ids, which may be text.
"""

from pathlib import Path

import numpy as np
import onnx
import torch

from models.onnx_export import exported
from models.parity import measure, relative, session_of
from models.session_recommender.features import INPUTS, LENGTH, PADDING, Catalogue, padding_of
from models.session_recommender.narrow import FEWEST, narrow
from models.session_recommender.scorer import Scorer
from models.session_recommender.vocabulary import with_vocabulary
from models.spec import MAX_BATCH, Parity, Tensors

TOLERANCE = 1e-5
"""Maximum relative difference of scores.

float32 sums of a few hundred terms in another order differ by about 1e-6.
"""
OVERLAP = 0.95
"""Minimum share of equal answers: one of 20 may differ, a tie at rank 20."""


def export(scorer: Scorer, catalogue: Catalogue, path: Path) -> Path:
    """Write `scorer` with the vocabulary before and after it; the batch dimension is free.

    Within the graph, so is the number of events, because most sessions are short.
    """
    example = torch.full((2, LENGTH), catalogue.nothing)
    nothing = torch.full((2, LENGTH), PADDING)
    free = {0: torch.export.Dim("batch"), 1: torch.export.Dim("events", min=FEWEST, max=LENGTH)}
    names = ["rows", "types", "times"]
    graph = exported(
        scorer,
        (example, nothing, nothing.clone()),
        names,
        ["best", "scores"],
        [free, free, free],
    )
    model = with_vocabulary(narrow(graph, names, catalogue.nothing), catalogue)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def parity(scorer: Scorer, catalogue: Catalogue, path: Path, inputs: list[np.ndarray]) -> Parity:
    """Compare module and file, in batches of every size that a server may make.

    `inputs` are raw ids, kinds and times, (n, 20) each. Sessions of no, one and 20 events are
    added to them.
    """
    inputs = [np.concatenate([_edges(values), values]) for values in inputs]
    ids, expected = _module_answers(scorer, catalogue, inputs)

    def compare(rows: np.ndarray, outputs: Tensors) -> tuple[np.ndarray, np.ndarray]:
        is_answered = (ids[rows, :, None] == outputs["answers"][:, None, :]).any(2)
        return is_answered.mean(1), relative(outputs["scores"], expected[rows]).max(1)

    asked = dict(zip(INPUTS, inputs, strict=True))
    return measure(session_of(path), asked, compare, OVERLAP, TOLERANCE)


def _module_answers(
    scorer: Scorer, catalogue: Catalogue, inputs: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Raw ids and scores by the module, (n, 20) each."""
    outputs = []
    for start in range(0, len(inputs[0]), MAX_BATCH):
        articles, *others = (values[start : start + MAX_BATCH] for values in inputs)
        with torch.inference_mode():
            outputs.append(scorer(*map(torch.from_numpy, (catalogue.rows(articles), *others))))
    best, scores = (torch.cat(tensors).numpy() for tensors in zip(*outputs, strict=True))
    return catalogue.raw()[best], scores


def _edges(values: np.ndarray) -> np.ndarray:
    """Sessions of no event, of one, and of `LENGTH`: (3, 20)."""
    nothing = np.full(LENGTH, padding_of(values), values.dtype)
    return np.stack([nothing, np.r_[values[0, :1], nothing[1:]], np.resize(values[:, 0], LENGTH)])
