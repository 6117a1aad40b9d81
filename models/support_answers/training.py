"""One training from rows to files.

The networks learn from the older questions and answer the newest, which choose temperature and
threshold. Then they are trained once more, alike, on all questions: these are served.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from onnx import ModelProto
from scipy.special import softmax

from models import text
from models.runtime import one_thread, silence_libraries
from models.spec import TrainingContext, TrainingResult
from models.support_answers import calibration, export, features, fit, warm_start
from models.support_answers.bags import Bags
from models.support_answers.fit import Stage
from models.support_answers.network import Network, ServedNetwork, rarity

MIN_QUESTIONS = 20
"""Minimum questions of a training."""
PARITY_INPUTS = 1_000
"""Maximum questions, the newest, on which file and module are compared."""


def train(rows: pl.DataFrame, params: Any, work: TrainingContext) -> TrainingResult:
    """See `ModelSpec.train`."""
    began = time.perf_counter()
    answered = features.with_answer(rows).sort("ts", "question")
    if len(answered) < MIN_QUESTIONS:
        raise ValueError(
            f"These rows have {len(answered)} questions that a known answer fits, and a training "
            f"needs {MIN_QUESTIONS}: widen the window."
        )
    with silence_libraries(), one_thread(), isolate_rng():
        data = Questions.of(answered, params)
        network, is_warm = started(data, data.learnt, params, work.parent)
        epochs = params.epochs
        if is_warm:
            epochs = params.warm_epochs
        judged = Stage("judged", data.learnt, data.held_out, epochs, (0.0, 0.5))
        curves = fit.fit(network, judged, params, work)
        temperature, threshold, metrics = calibrated(network, data, params.max_error)
        weights = save_weights(network, data, work)
        everything = data.learnt.joined(data.held_out)
        network, _ = started(data, everything, params, work.parent)
        fit.fit(network, Stage("served", everything, None, epochs, (0.5, 1.0)), params, work)
        network.round()
        served = ServedNetwork(network.eval(), temperature, threshold)
        work.before_write()
        onnx = export.export(served, data.ngrams, data.intents, work.folder / "model.onnx")
        texts = features.texts(answered.tail(PARITY_INPUTS))
        parity = export.parity(served, data.ngrams, data.intents, onnx, texts)
    metrics |= {"seconds": time.perf_counter() - began}
    return TrainingResult(onnx, weights, parity, metrics["accuracy"], metrics, curves, is_warm)


@dataclass(frozen=True)
class Questions:
    """Questions of a training: the newest are held out, until the rest has answered them."""

    ngrams: ModelProto
    """Graph from texts to rows of the n-gram table."""
    intents: list[str]
    learnt: Bags
    held_out: Bags
    learnt_until: int
    """ms since 1970 UTC: time of the newest one that is not held out."""
    held_out_from: int
    """ms since 1970 UTC: time of the oldest one that is held out."""

    @classmethod
    def of(cls, answered: pl.DataFrame, params: Any) -> "Questions":
        """From questions with a known answer, sorted by time."""
        count = len(answered) - max(1, round(len(answered) * params.held_out))
        intents = answered["intent"].unique().sort()
        labels = text.positions(answered["intent"].to_numpy(), intents.to_numpy(), -1)
        ngrams = export.ngrams_graph(params.buckets)
        bags = Bags(export.bags(ngrams, features.texts(answered)), labels)
        return cls(
            ngrams,
            intents.to_list(),
            bags.take(np.arange(count)),
            bags.take(np.arange(count, len(answered))),
            answered["ts"][count - 1],
            answered["ts"][count],
        )


def started(
    data: Questions, learnt: Bags, params: Any, parent: Path | None
) -> tuple[Network, bool]:
    """Networks that have not learnt from `learnt` yet, and whether they start from the parent."""
    torch.manual_seed(params.seed)
    network = Network(
        rarity(learnt.rows, params.buckets),
        params.dim,
        params.members,
        len(data.intents),
        params.dropout,
    )
    return network, start_warm(network, data, parent)


def save_weights(network: Network, data: Questions, work: TrainingContext) -> Path:
    """Write the weights that have not seen what was held out: the next training may hold it out,
    too."""
    work.before_write()
    path = work.folder / "weights.safetensors"
    return warm_start.save_weights(path, network, data.intents, data.learnt_until)


def start_warm(network: Network, data: Questions, parent: Path | None) -> bool:
    """Take over the parent's weights, if there are some that fit. Returns whether it was done.

    A parent that learnt from held-out questions would be too sure of them, so it is not used.
    """
    if parent is None:
        return False
    weights = warm_start.read_parent(parent)
    if weights.learnt_until >= data.held_out_from:
        return False
    return warm_start.take_over(weights, network, data.intents)


def calibrated(
    network: Network, data: Questions, max_error: float
) -> tuple[float, float, dict[str, float]]:
    """Temperature, threshold, and what was measured to choose them.

    A held-out question whose intent was not learnt counts as answered wrongly.
    """
    labels = data.held_out.labels
    scores = fit.scores_of(network, data.held_out).numpy()
    is_learnt = np.isin(labels, data.learnt.labels)
    temperature = 1.0
    if is_learnt.any():
        temperature = calibration.temperature(scores[is_learnt], labels[is_learnt])
    confidence = softmax(scores / temperature, axis=1).max(1)
    is_right = scores.argmax(1) == labels
    threshold = calibration.threshold(confidence, is_right, max_error)
    is_answered = confidence >= threshold
    metrics = {
        "accuracy": float(is_right.mean()),
        "handed_over": float(1 - is_answered.mean()),
        "answered_wrongly": float((is_answered & ~is_right).sum() / max(1, is_answered.sum())),
        "temperature": temperature,
        "threshold": threshold,
    }
    return temperature, threshold, metrics
