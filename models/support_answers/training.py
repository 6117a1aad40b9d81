"""One training from rows to files: n-grams, networks, calibration, export, parity."""

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
from models.spec import TrainingContext, TrainingResult
from models.support_answers import calibration, export, features, fit, warm_start
from models.support_answers.bags import Bags
from models.support_answers.network import Network, ServedNetwork, rarity
from models.support_answers.runtime import one_thread, silence_libraries

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
        torch.manual_seed(params.seed)
        data = Questions.of(answered, params)
        network = Network(
            rarity(data.learnt.rows, params.buckets),
            params.dim,
            params.members,
            len(data.intents),
            params.dropout,
        )
        is_warm = start_warm(network, data, work.parent)
        curves = fit.fit(network, data.learnt, data.held_out, params, work, is_warm)
        network.round()
        served, metrics = calibrated(network, data.held_out, params.max_error)
        work.before_write()
        onnx = export.export(served, data.ngrams, data.intents, work.folder / "model.onnx")
        texts = features.texts(answered.tail(PARITY_INPUTS))
        parity = export.parity(served, data.ngrams, data.intents, onnx, texts)
    work.before_write()
    weights = warm_start.save_weights(
        work.folder / "weights.safetensors", network, data.intents, data.learnt_until
    )
    metrics |= {"seconds": time.perf_counter() - began}
    return TrainingResult(onnx, weights, parity, metrics["accuracy"], metrics, curves, is_warm)


@dataclass(frozen=True)
class Questions:
    """Questions of a training: the older ones are learnt from, the newest held out."""

    ngrams: ModelProto
    """Graph from texts to rows of the n-gram table."""
    intents: list[str]
    """The answers that are learnt."""
    learnt: Bags
    held_out: Bags
    learnt_until: int
    """ms since 1970 UTC: time of the newest one that is learnt from."""
    held_out_from: int
    """ms since 1970 UTC: time of the oldest one that is held out."""

    @classmethod
    def of(cls, answered: pl.DataFrame, params: Any) -> "Questions":
        """From questions with a known answer, sorted by time."""
        count = len(answered) - max(1, round(len(answered) * params.held_out))
        intents = answered["intent"][:count].unique().sort()
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
    network: Network, held_out: Bags, max_error: float
) -> tuple[ServedNetwork, dict[str, float]]:
    """The network with temperature and threshold, and what was measured to choose them.

    A held-out question whose intent was not learnt counts as answered wrongly.
    """
    scores = fit.scores_of(network, held_out).numpy()
    has_label = held_out.labels >= 0
    temperature = 1.0
    if has_label.any():
        temperature = calibration.temperature(scores[has_label], held_out.labels[has_label])
    confidence = softmax(scores / temperature, axis=1).max(1)
    is_right = scores.argmax(1) == held_out.labels
    threshold = calibration.threshold(confidence, is_right, max_error)
    is_answered = confidence >= threshold
    metrics = {
        "accuracy": float(is_right.mean()),
        "handed_over": float(1 - is_answered.mean()),
        "answered_wrongly": float((is_answered & ~is_right).sum() / max(1, is_answered.sum())),
        "temperature": temperature,
        "threshold": threshold,
    }
    return ServedNetwork(network.eval(), temperature, threshold), metrics
