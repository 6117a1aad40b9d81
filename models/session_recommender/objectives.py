"""Objectives of encoder and ranker: losses and steps, the same on one process and on many."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from models.runtime import seed_step
from models.session_recommender import metrics
from models.session_recommender.blocks import Block
from models.session_recommender.covisitation_index import CovisitationIndex
from models.session_recommender.encoder import Encoder, Session, newest
from models.session_recommender.ranker import Ranker, rank
from models.session_recommender.scorer import Scorer

LOG_EVERY = 50
"""Steps from one point of the loss curve to the next."""


def drop_times(times: Tensor) -> Tensor:
    """Times of every tenth session replaced by -1, because a request may come without."""
    return torch.where(torch.rand(len(times), 1, device=times.device) < 0.1, -1, times)


class Task(lightning.LightningModule):
    """What both trainings share: curves, best weights, learning rate, and steps that repeat."""

    def __init__(self, network: torch.nn.Module, seed: int, lr: float):
        super().__init__()
        self.network = network
        self.seed = seed
        self.lr = lr
        self.curves: list[tuple[str, int, float]] = []
        self.best = -1.0
        self.best_state = self.state()
        self.hits: list[np.ndarray] = []
        # Lightning's own estimate would set up the batches before a checkpoint says where they
        # stood.
        self.steps = 0

    def state(self) -> dict[str, Tensor]:
        """Copy of the network's weights in the CPU's memory."""
        return {k: v.detach().cpu().clone() for k, v in self.network.state_dict().items()}

    def loss(self, batch: Any) -> Tensor:
        """Loss of one batch."""
        raise NotImplementedError

    def training_step(self, batch: Any, step: int) -> Tensor:
        """Loss of a step, whose random numbers depend on its number alone."""
        seed_step(self, self.seed)
        loss = self.loss(batch)
        if self.global_step % LOG_EVERY == 0:
            self.curves.append(("train_loss", self.global_step, float(loss.detach())))
        return loss

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None
    ) -> None:
        """Free the gradients' memory before the next forward pass; Lightning does it after."""
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        optimizer.zero_grad()

    def on_validation_epoch_end(self) -> None:
        """Remember the best epoch; every process sees the whole validation, so all agree."""
        recall = float(np.concatenate(self.hits).mean())
        self.hits = []
        self.curves.append(("validation_recall", self.global_step, recall))
        self.log("recall", recall)
        if recall > self.best:
            self.best = recall
            self.best_state = self.state()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the curves and the best weights to the checkpoint."""
        checkpoint |= {"curves": self.curves, "best": self.best, "best_state": self.best_state}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the curves and the best weights from the checkpoint."""
        self.curves = [tuple(point) for point in checkpoint["curves"]]
        self.best = checkpoint["best"]
        self.best_state = checkpoint["best_state"]

    def configure_optimizers(self) -> Any:
        """AdamW; the rate rises for a tenth of the steps and then falls to zero."""
        optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=self.lr, weight_decay=0.05, fused=True
        )
        steps = self.steps + 1
        # A rise of a single step would divide by zero.
        rise = max(0.1, 2 / steps)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.lr, total_steps=steps, pct_start=rise
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def catalogue_logsumexp(
    queries: Tensor,
    vectors: Callable[[Tensor], Tensor],
    articles: Tensor,
    own: Tensor,
    max_drawn: int,
) -> Tensor:
    """log sum_j exp(queries @ vectors(articles)[j]), float32 (n,), of queries (n, dim).

    `articles` are int64 and ascending, `own` some of them, ascending. Where there are more than
    `max_drawn` articles, the sum is estimated without bias: exactly over `own`, and over the rest
    from a uniform sample of `max_drawn`, weighted up.
    """
    if len(articles) <= max_drawn:
        return (queries @ vectors(articles).T).logsumexp(1)
    is_rest = torch.ones(len(articles), dtype=torch.bool, device=articles.device)
    is_rest[torch.searchsorted(articles, own)] = False
    rest = articles[is_rest]
    count = min(max_drawn, len(rest))
    drawn = rest[torch.randint(max(1, len(rest)), (count,), device=articles.device)]
    log_weights = torch.zeros(len(own) + len(drawn), device=articles.device)
    log_weights[len(own) :] = np.log(max(1, len(rest)) / max(1, len(drawn)))
    return (queries @ vectors(torch.cat([own, drawn])).T + log_weights).logsumexp(1)


class EncoderTask(Task):
    """Predicts every event of every session from those before it, against a sample of the
    catalogue."""

    network: Encoder

    def __init__(
        self,
        encoder: Encoder,
        params: Any,
        index: CovisitationIndex,
        articles: np.ndarray,
        lr: float,
    ):
        super().__init__(encoder, params.seed, lr)
        self.params = params
        self.padding = index.nothing
        # In a list, the index is not a submodule, which would be trained, moved and saved.
        self.unregistered_index = [index]
        self.compared = torch.from_numpy(articles)
        self.event_weights = torch.tensor([1.0, params.cart_weight, params.order_weight])

    def loss(self, batch: Session) -> Tensor:
        """Cross-entropy of the softmax, weighted by `event_weights`.

        Articles that the session had already get their bias.
        """
        padding = self.padding
        rows = torch.where(batch.rows < 0, padding, batch.rows)
        kinds = batch.kinds[:, :-1].clamp(min=0)
        session = Session(rows[:, :-1], kinds, drop_times(batch.times[:, :-1]))
        is_known = session.rows < padding
        is_label = rows[:, 1:] < padding
        labels = rows[:, 1:][is_label]
        earlier = session.rows[:, None].expand(-1, is_known.shape[1], -1)[is_label]
        expected, repeat_bias = self.network(self.network.vectors(session.rows), session, is_known)
        expected = expected[is_label]
        repeat_bias = repeat_bias[is_label]
        is_newest = newest(session.rows, is_known)[is_label]
        log_sum = catalogue_logsumexp(
            expected,
            self.network.vectors,
            self.compared.to(self.device),
            rows[rows < padding].unique(),
            self.params.most_compared,
        )
        earlier_logits = (expected[:, None] * self.network.vectors(earlier)).sum(-1)
        repeats = (earlier_logits.exp() * (repeat_bias.exp() - 1) * is_newest).sum(1)
        label_logits = (expected * self.network.vectors(labels)).sum(1)
        is_repeat = earlier == labels[:, None]
        label_logits = label_logits + (repeat_bias * is_newest * is_repeat).sum(1)
        weights = self.event_weights.to(self.device)[batch.kinds[:, 1:][is_label]]
        # The sum has the right answer in it, whatever rounding makes of the rest.
        total = torch.maximum(log_sum.exp() + repeats, label_logits.exp())
        return ((total.log() - label_logits) * weights).sum() / weights.sum().clamp(min=1e-9)

    def on_validation_epoch_start(self) -> None:
        """Make a scorer, because the vectors change with every epoch."""
        encoder = copy.deepcopy(self.network).cpu()
        self.unregistered_scorer = [Scorer(self.unregistered_index[0], encoder).eval()]

    def validation_step(self, batch: tuple[Session, Tensor], step: int) -> None:
        """Recall@20 of table and encoder together."""
        session, labels = batch
        answers, _ = self.unregistered_scorer[0](*(t.cpu() for t in session))
        self.hits.append(metrics.recall(answers.numpy(), labels.cpu().numpy()))


class RankerTask(Task):
    """Puts the right candidate before the others.

    It learns from prefixes that neither table nor encoder had seen.
    """

    network: Ranker

    def __init__(self, ranker: Ranker, params: Any, validation: Block):
        super().__init__(ranker, params.seed, params.ranker_lr)
        self.event_weights = torch.tensor([1.0, params.cart_weight, params.order_weight])
        answers = validation.candidates.rows[:, :20].numpy()
        self.best = float(metrics.recall(answers, validation.labels.numpy()).mean())

    def transfer_batch_to_device(
        self, batch: Block, device: torch.device, dataloader_idx: int
    ) -> Block:
        """The batch where it is: Lightning would copy the index, too."""
        return batch

    def scores(self, block: Block) -> Tensor:
        """Scores of the candidates, float32 (n, CANDIDATES)."""
        return rank(self.network, block.index, block.vectors, block.session, block.candidates)

    def loss(self, batch: Block) -> Tensor:
        """Cross-entropy over the candidates, weighted by `event_weights`."""
        right = (batch.candidates.rows == batch.labels[:, None]).long().argmax(1)
        session = batch.session._replace(times=drop_times(batch.session.times))
        weights = self.event_weights[batch.kinds]
        scores = self.scores(replace(batch, session=session))
        losses = F.cross_entropy(scores, right, reduction="none")
        return (losses * weights).sum() / weights.sum().clamp(min=1e-9)

    def validation_step(self, batch: Block, step: int) -> None:
        """Recall@20 of what would be served."""
        self.hits.append(batch.hits(self.scores(batch)))
