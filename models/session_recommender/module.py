"""The network, its training with Lightning, and the scorer that joins it with the co-visitation table."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import EarlyStopping
from torch import Tensor, nn
from torch.nn import functional as F

from models.session_recommender import metrics
from models.session_recommender.features import LENGTH, Covisitation

SCALE = 1 / 0.07
"""Of cosines, before the softmax: the temperature of CORE."""
CREDIT = (0.6, 0.9)
"""How much less an event counts than the next one: for its neighbours, and for itself as an answer."""
FLOOR = 1e-3
"""Co-visitation below this hardly counts: its logarithm is what is added."""
NEVER = -1e9
"""Score of a row that is no article."""
LOG_EVERY = 50


@contextmanager
def quiet() -> Iterator[None]:
    """Silences what Lightning and the exporter say about devices, workers and each other."""
    loggers = [
        logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric", "torch.onnx", "onnxscript")
    ]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


@contextmanager
def one_thread() -> Iterator[None]:
    """Steps this small lose more to threads that wait for each other than they gain, and results stay the same."""
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(threads)


def ages(known: Tensor) -> Tensor:
    """Known events that came after each one: bool (batch, 20) to int64 (batch, 20); unknown ones are as if absent."""
    count = known.long().cumsum(1)
    return (count[:, -1:] - count).clamp(max=LENGTH - 1)


class Encoder(nn.Module):
    """A session as a weighted mean of its articles' vectors, so that both live in one space.

    Hou et al., "CORE: Simple and Effective Session-based Recommendation within Consistent Representation Space", 2022;
    the weights come from an attention to the last event, as in Liu et al., "STAMP", 2018, and from the event's age.
    """

    def __init__(self, size: int, dim: int):
        super().__init__()
        self.articles = nn.Parameter(torch.randn(size, dim) * dim**-0.5)
        self.age = nn.Parameter(torch.zeros(LENGTH, dim))
        self.fade = nn.Parameter(-0.4 * torch.arange(float(LENGTH)))
        self.event = nn.Linear(dim, dim)
        self.newest = nn.Linear(dim, dim)
        self.weight = nn.Linear(dim, 1, bias=False)
        self.dropout = nn.Dropout(0.2)

    def vectors(self, rows: Tensor) -> Tensor:
        """Unit vectors of articles: int64 (...) to float32 (..., dim)."""
        return F.normalize(F.embedding(rows, self.articles), dim=-1)

    def forward(self, vectors: Tensor, known: Tensor) -> Tensor:
        """Unit vectors (batch, 20, dim) and which are real (batch, 20) to session vectors of length `SCALE`."""
        age = ages(known)
        vectors = self.dropout(vectors * known[..., None])
        newest = (vectors * (age == 0)[..., None]).sum(1, keepdim=True)
        hidden = torch.tanh(self.event(vectors) + self.newest(newest) + self.age[age])
        logits = self.weight(hidden)[..., 0] + self.fade[age]
        share = logits.masked_fill(~known, NEVER).softmax(1)
        return F.normalize((share[..., None] * vectors).sum(1), dim=1) * SCALE


class Scorer(nn.Module):
    """What is exported: rows of a session's events to the best rows and their scores.

    score = cosine of session and article * SCALE + mix * log(1 + co-visitation / FLOOR) + a little popularity, which
    only decides where nothing else is known. Without an encoder it is the trivial baseline.
    """

    table: Tensor
    neighbours: Tensor
    weights: Tensor

    def __init__(self, covisitation: Covisitation, encoder: Encoder | None = None, mix: float = 3.0):
        super().__init__()
        self.mix, self.encoder = mix, encoder
        popularity = torch.from_numpy(covisitation.popularity)
        prior = torch.where(popularity > 0, 1e-2 * (popularity / popularity.max()).log(), NEVER)[:, None]
        vectors = [] if encoder is None else [encoder.vectors(torch.arange(len(prior))).detach()]
        self.register_buffer("table", torch.cat([*vectors, prior], 1))
        self.register_buffer("neighbours", torch.from_numpy(covisitation.neighbours).int())
        self.register_buffer("weights", torch.from_numpy(covisitation.weights))

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """int64 (batch, 20), the table's last row where there is no event, to int64 and float32 (batch, 20)."""
        known = rows < len(self.table) - 1
        session = torch.ones_like(rows[:, :1], dtype=torch.float32)
        if self.encoder is not None:
            vectors = F.embedding(rows, self.table)[..., :-1]
            session = torch.cat([self.encoder(vectors, known), session], 1)
        scores = self._add_covisitation(session @ self.table.T, rows, known)
        best = torch.topk(scores, LENGTH)
        return best.indices, best.values

    def _add_covisitation(self, scores: Tensor, rows: Tensor, known: Tensor) -> Tensor:
        """Touches only the articles that were seen with the session's, not the whole catalogue."""
        near, own = (known * base ** ages(known).float() for base in CREDIT)
        index = torch.cat([self.neighbours[rows].flatten(1).long(), rows], 1)
        credit = torch.cat([(self.weights[rows] * near[..., None]).flatten(1), own], 1)
        total = torch.zeros_like(scores).scatter_add(1, index, credit).gather(1, index)
        return scores.scatter(1, index, scores.gather(1, index) + self.mix * torch.log(1 + total / FLOOR))


class Batches:
    """Prefixes in random order, as (inputs, labels), without the last columns that are padding in the whole batch.

    Every `MIXED` batches' worth are sorted by length before they are cut, or all batches would be as wide as the
    longest prefix. A remainder is left out. In order (not `shuffled`) nothing is left out.
    """

    MIXED = 64

    def __init__(self, inputs: Tensor, labels: Tensor, size: int, nothing: int, shuffled: bool = True):
        self.inputs, self.labels, self.size, self.shuffled = inputs, labels, min(size, len(inputs)), shuffled
        self.lengths = (inputs != nothing).sum(1)

    def __len__(self) -> int:
        return len(self.inputs) // self.size if self.shuffled else -(-len(self.inputs) // self.size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        if not self.shuffled:
            yield from zip(self.inputs.split(self.size), self.labels.split(self.size), strict=True)
            return
        order = torch.randperm(len(self.inputs))[: len(self) * self.size]
        sort = [part[self.lengths[part].argsort(stable=True)] for part in order.split(self.size * self.MIXED)]
        batches = torch.cat(sort).split(self.size)
        for i in torch.randperm(len(batches)):
            index = batches[i]
            yield self.inputs[index, : int(self.lengths[index].max())], self.labels[index]


class Recommender(lightning.LightningModule):
    """Trains an encoder by sampled softmax and keeps the weights of its best epoch, judged together with the table.

    Each label competes with the other labels of its batch and with `negatives` articles drawn by popularity^0.75;
    logits are corrected by log of the chance to be drawn (Bengio and Senecal 2008; Yi et al., RecSys 2019).
    """

    def __init__(self, encoder: Encoder, params: Any, count: np.ndarray, covisitation: Covisitation):
        super().__init__()
        self.encoder, self.params, self.covisitation = encoder, params, covisitation
        chance = torch.from_numpy(count + 1.0) ** 0.75
        chance[-1] = 0
        self.chance = chance / chance.sum()
        self.cumulative = self.chance.cumsum(0)
        self.curves: list[tuple[str, int, float]] = []
        self.best, self.best_state = -1.0, self._state()

    def _state(self) -> dict[str, Tensor]:
        return {k: v.detach().clone() for k, v in self.encoder.state_dict().items()}

    def training_step(self, batch: tuple[Tensor, Tensor], step: int) -> Tensor:
        """Loss of one batch: inputs (n, 20), labels (n,)."""
        rows, labels = batch
        draws = torch.rand(self.params.negatives, dtype=torch.float64) * self.cumulative[-1]
        candidates = torch.cat([labels, torch.searchsorted(self.cumulative, draws).clamp(max=len(self.chance) - 2)])
        session = self.encoder(self.encoder.vectors(rows), rows < len(self.chance) - 1)
        logits = session @ self.encoder.vectors(candidates).T - self.chance[candidates].float().log()
        same = (candidates == labels[:, None]).fill_diagonal_(False)
        loss = F.cross_entropy(logits.masked_fill(same, NEVER), torch.arange(len(labels)))
        if self.global_step % LOG_EVERY == 0:
            self.curves.append(("train_loss", self.global_step, float(loss)))
        return loss

    def on_validation_epoch_start(self) -> None:
        """The table of vectors changes with every epoch."""
        self.scorer = Scorer(self.covisitation, self.encoder)
        self.hits: list[np.ndarray] = []

    def validation_step(self, batch: tuple[Tensor, Tensor], step: int) -> None:
        """Recall@20 of what would be served."""
        rows, labels = batch
        self.hits.append(metrics.recall(self.scorer(rows)[0].numpy(), labels.numpy()))

    def on_validation_epoch_end(self) -> None:
        """Remembers the best epoch in memory."""
        recall = float(np.concatenate(self.hits).mean())
        self.curves.append(("validation_recall", self.global_step, recall))
        self.log("recall", recall)
        if recall > self.best:
            self.best, self.best_state = recall, self._state()

    def configure_optimizers(self) -> Any:
        """AdamW; the rate rises for a tenth of the steps and then falls to zero."""
        optimizer = torch.optim.AdamW(self.encoder.parameters(), lr=self.params.lr, weight_decay=0.0, fused=True)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.params.lr, total_steps=steps + 1, pct_start=0.1)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def fit(network: Recommender, inputs: Batches, validation: Batches, epochs: int) -> None:
    """Trains `network` in place and leaves its encoder with the weights of the best epoch, in eval mode."""
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[EarlyStopping(monitor="recall", mode="max", patience=1)],
    )
    trainer.fit(network, inputs, validation)
    network.encoder.load_state_dict(network.best_state)
    network.encoder.eval()
