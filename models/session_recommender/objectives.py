"""How the two networks are trained with Lightning: batches, steps, checkpoints; the same on one
process and on many."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from models.session_recommender import metrics
from models.session_recommender.batches import Batches
from models.session_recommender.encoder import Encoder, Session, newest
from models.session_recommender.scorer import Candidates, Known, Ranker, Scorer, rank

LOG_EVERY = 50


def forgotten(times: Tensor) -> Tensor:
    """Every tenth session without times, because a request may come without."""
    return torch.where(torch.rand(len(times), 1, device=times.device) < 0.1, -1, times)


class Task(lightning.LightningModule):
    """What both trainings share: curves, the best weights so far, a rate that rises and falls,
    steps that repeat."""

    def __init__(self, network: torch.nn.Module, seed: int, lr: float):
        super().__init__()
        self.network = network
        self.seed = seed
        self.lr = lr
        self.curves: list[tuple[str, int, float]] = []
        self.best = -1.0
        self.best_state = self.state()
        self.hits: list[np.ndarray] = []
        # Not asked of Lightning: its estimate sets up the batches before a checkpoint says where
        # they stood.
        self.steps = 0

    def state(self) -> dict[str, Tensor]:
        return {k: v.detach().cpu().clone() for k, v in self.network.state_dict().items()}

    def loss(self, batch: Any) -> Tensor:
        """Loss of one batch."""
        raise NotImplementedError

    def training_step(self, batch: Any, step: int) -> Tensor:
        """Whatever is drawn in a step depends on its number alone: a resumed training repeats
        it."""
        number = (self.seed * 1_000_003 + self.global_step) * 1_009 + self.global_rank
        # Without a GPU, torch.manual_seed remembers every call, with its stack, until there is one.
        (torch.default_generator.manual_seed if self.device.type == "cpu" else torch.manual_seed)(
            number
        )
        loss = self.loss(batch)
        if self.global_step % LOG_EVERY == 0:
            self.curves.append(("train_loss", self.global_step, float(loss.detach())))
        return loss

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None
    ) -> None:
        """Gives the gradients' memory back before the next forward pass wants some; Lightning does
        it after."""
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        optimizer.zero_grad()

    def on_validation_epoch_end(self) -> None:
        """Remembers the best epoch; every process sees the whole validation, so all agree."""
        recall = float(np.concatenate(self.hits).mean())
        self.hits = []
        self.curves.append(("validation_recall", self.global_step, recall))
        self.log("recall", recall)
        if recall > self.best:
            self.best = recall
            self.best_state = self.state()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Curves and the best weights are part of where a training stands."""
        checkpoint |= {"curves": self.curves, "best": self.best, "best_state": self.best_state}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """See `on_save_checkpoint`."""
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
    queries: Tensor, vectors: Callable[[Tensor], Tensor], articles: Tensor, own: Tensor, most: int
) -> Tensor:
    """log sum_j exp(queries @ vectors(articles)[j]), float32 (n,), of queries (n, dim).

    Where the articles, int64 and ascending, are more than `most`, the sum is estimated without
    bias: exactly over `own`, which are some of them, ascending, and over the rest from a uniform
    sample of `most`, weighted up.
    """
    if len(articles) <= most:
        return (queries @ vectors(articles).T).logsumexp(1)
    left = torch.ones(len(articles), dtype=torch.bool, device=articles.device)
    left[torch.searchsorted(articles, own)] = False
    others = articles[left]
    drawn = others[
        torch.randint(max(1, len(others)), (min(most, len(others)),), device=articles.device)
    ]
    more = torch.zeros(len(own) + len(drawn), device=articles.device)
    more[len(own) :] = np.log(max(1, len(others)) / max(1, len(drawn)))
    return (queries @ vectors(torch.cat([own, drawn])).T + more).logsumexp(1)


class EncoderTask(Task):
    """Every event of every session is predicted from those before it, against a sample of the
    catalogue."""

    network: Encoder

    def __init__(
        self, encoder: Encoder, params: Any, known: Known, articles: np.ndarray, lr: float
    ):
        super().__init__(encoder, params.seed, lr)
        self.params = params
        self.padding = len(known.prior) - 1
        self.aside = [
            known
        ]  # In a list, it is not part of what is trained, sent to a device and saved.
        self.compared = torch.from_numpy(articles)
        self.worth = torch.tensor([1.0, params.cart_weight, params.order_weight])

    def loss(self, batch: Session) -> Tensor:
        """Cross-entropy of the softmax, articles that were seen with their bias, weighted by the
        event's worth."""
        worth = self.worth.to(self.device)
        padding = self.padding
        rows = torch.where(batch.rows < 0, padding, batch.rows)
        session = Session(
            rows[:, :-1], batch.kinds[:, :-1].clamp(min=0), forgotten(batch.times[:, :-1])
        )
        known = session.rows < padding
        predicted = rows[:, 1:] < padding
        labels = rows[:, 1:][predicted]
        seen = session.rows[:, None].expand(-1, known.shape[1], -1)[predicted]
        expected, again = self.network(self.network.vectors(session.rows), session, known)
        expected = expected[predicted]
        again = again[predicted]
        counted = newest(session.rows, known)[predicted]
        everything = catalogue_logsumexp(
            expected, self.network.vectors, self.compared.to(self.device), rows[rows < padding].unique(),
            self.params.most_compared,
        )  # fmt: skip
        own = (expected[:, None] * self.network.vectors(seen)).sum(-1)
        more = (own.exp() * (again.exp() - 1) * counted).sum(1)
        right = (expected * self.network.vectors(labels)).sum(1) + (
            again * counted * (seen == labels[:, None])
        ).sum(1)
        weight = worth[batch.kinds[:, 1:][predicted]]
        # The sum has the right answer in it, whatever rounding makes of the rest.
        total = torch.maximum(everything.exp() + more, right.exp())
        return ((total.log() - right) * weight).sum() / weight.sum().clamp(min=1e-9)

    def on_validation_epoch_start(self) -> None:
        """The table of vectors changes with every epoch."""
        self.scorer = [Scorer(self.aside[0], copy.deepcopy(self.network).cpu()).eval()]

    def validation_step(self, batch: tuple[Session, Tensor], step: int) -> None:
        """Recall@20 of table and encoder together."""
        session, labels = batch
        self.hits.append(
            metrics.recall(
                self.scorer[0](*(t.cpu() for t in session))[0].numpy(), labels.cpu().numpy()
            )
        )


@dataclass(frozen=True)
class Block:
    """`n` prefixes of a stretch of time, with what was known and answered just before it."""

    known: Known
    vectors: Tensor
    session: Session
    found: Candidates
    labels: Tensor
    """int64 (n,), rows"""
    kinds: Tensor
    """int64 (n,), of the labels' events"""

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: Tensor | np.ndarray) -> "Block":
        """The prefixes at `index`."""
        session = Session(*(t[index] for t in self.session))
        found = Candidates(*(t[index] for t in self.found))
        return Block(
            self.known, self.vectors, session, found, self.labels[index], self.kinds[index]
        )

    def lengths(self) -> np.ndarray:
        """Columns of each prefix up to its last known event, int64 (n,)."""
        known = self.session.rows < len(self.known.prior) - 1
        return (known * torch.arange(1, known.shape[1] + 1)).amax(1).numpy()

    def narrow(self) -> "Block":
        """Without the columns that are padding in all prefixes."""
        width = int(self.lengths().max(initial=1))
        return replace(self, session=Session(*(t[:, :width] for t in self.session)))

    def answerable(self) -> "Block":
        """The prefixes whose label is known and among the candidates."""
        found = (self.found.rows == self.labels[:, None]).any(1) & self.known.known(self.labels)
        return self.take(found.nonzero()[:, 0])


class RankerTask(Task):
    """The right candidate against the other ones, on prefixes that neither table nor encoder had
    seen."""

    network: Ranker

    def __init__(self, ranker: Ranker, params: Any, validation: Block):
        super().__init__(ranker, params.seed, params.ranker_lr)
        self.worth = torch.tensor([1.0, params.cart_weight, params.order_weight])
        self.best = float(
            metrics.recall(validation.found.rows[:, :20].numpy(), validation.labels.numpy()).mean()
        )

    def transfer_batch_to_device(
        self, batch: Block, device: torch.device, dataloader_idx: int
    ) -> Block:
        """Stays where it is: Lightning would copy what is known, too."""
        return batch

    def scores(self, block: Block) -> Tensor:
        """Of the candidates, float32 (n, CANDIDATES)."""
        return rank(self.network, block.known, block.vectors, block.session, block.found)

    def loss(self, batch: Block) -> Tensor:
        """Cross-entropy over the candidates."""
        right = (batch.found.rows == batch.labels[:, None]).long().argmax(1)
        batch = replace(batch, session=batch.session._replace(times=forgotten(batch.session.times)))
        worth = self.worth[batch.kinds]
        losses = F.cross_entropy(self.scores(batch), right, reduction="none")
        return (losses * worth).sum() / worth.sum().clamp(min=1e-9)

    def recall(self, block: Block) -> np.ndarray:
        """Recall@20 of what would be served."""
        best = block.found.rows.gather(1, self.scores(block).topk(20).indices)
        return metrics.recall(best.numpy(), block.labels.numpy())

    def validation_step(self, batch: Block, step: int) -> None:
        """See `recall`."""
        self.hits.append(self.recall(batch))


def ranker_batches(blocks: list[Block], size: int, seed: int) -> Batches:
    """Batches of prefixes, each of one block."""
    first = np.cumsum([0, *map(len, blocks)])

    def take(index: np.ndarray) -> Block:
        k = int(np.searchsorted(first, index[0], "right")) - 1
        return blocks[k].take(index - first[k]).narrow()

    return Batches(
        np.concatenate([b.lengths() for b in blocks]), [len(b) for b in blocks], size, seed, take
    )
