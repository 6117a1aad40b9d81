"""The fit of the networks with Lightning; one that was killed goes on from its last epoch."""

import json
import os
from dataclasses import dataclass
from typing import Any

import lightning
import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import Callback
from safetensors.torch import load_file, save_file
from torch import Tensor

from models.checkpoints import checkpoint_at
from models.runtime import make_trainer
from models.spec import TrainingContext
from models.support_answers.bags import Bags, Batch, Batches
from models.support_answers.network import Network

ASKED = 256
"""Questions that are answered at once."""
Curves = list[tuple[str, int, float]]


class Task(lightning.LightningModule):
    """Losses and steps: each member learns the right intents by itself."""

    def __init__(self, network: Network, params: Any, steps: int):
        super().__init__()
        self.network = network
        self.params = params
        self.steps = steps
        self.curves: Curves = []

    def on_train_epoch_start(self) -> None:
        """Seed what the epoch draws."""
        torch.manual_seed(self.params.seed * 10_000 + self.current_epoch)

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """Cross-entropy, averaged over the members."""
        rows, starts, labels = batch
        scores = self.network.members_scores(self.network.hidden_of_bags(rows, starts))
        each = labels.expand(len(scores), -1).flatten()
        return F.cross_entropy(scores.flatten(0, 1), each, label_smoothing=self.params.smoothing)

    def configure_optimizers(self) -> Any:
        """Adagrad, which moves only the vectors of the batch's n-grams; the rate falls to zero."""
        optimizer = torch.optim.Adagrad(self.network.parameters(), lr=self.params.lr)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: max(0.0, 1 - step / self.steps)
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        """Keep the curves."""
        checkpoint["curves"] = self.curves

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        """Go on with them."""
        self.curves = [tuple(point) for point in checkpoint["curves"]]


@dataclass(frozen=True)
class Stage:
    """One fit of a training: what it learns from, and how long."""

    name: str
    """Name of its files."""
    learnt: Bags
    held_out: Bags | None
    """Questions whose accuracy is measured after each epoch."""
    epochs: int
    progress: tuple[float, float]
    """Share of the whole training that is done before and after it."""


class Progress(Callback):
    """A checkpoint and a report after each epoch."""

    def __init__(self, stage: Stage, work: TrainingContext):
        self.stage = stage
        self.work = work

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Measure the accuracy; write the checkpoint beside the old one, then put it in place."""
        assert isinstance(pl_module, Task)
        metrics = {}
        if self.stage.held_out is not None:
            accuracy = accuracy_of(pl_module.network, self.stage.held_out)
            pl_module.curves.append(("validation_accuracy", trainer.current_epoch, accuracy))
            metrics = {"accuracy": accuracy, "validation": accuracy}
        start, end = self.stage.progress
        done = (trainer.current_epoch + 1) / self.stage.epochs
        self.work.report(start + (end - start) * done, metrics)
        self.work.before_write()
        last = self.work.folder / f"{self.stage.name}.ckpt"
        trainer.save_checkpoint(last.with_suffix(".new"))
        os.replace(last.with_suffix(".new"), last)


def fit(network: Network, stage: Stage, params: Any, work: TrainingContext) -> Curves:
    """Train the networks in place. Returns the curves.

    `<stage>.json` in `work.folder` says that the fit was finished before.
    """
    done = work.folder / f"{stage.name}.json"
    if not done.exists():
        curves = run(network, stage, params, work)
        work.before_write()
        save_file(network.state_dict(), done.with_suffix(".safetensors"))
        done.with_suffix(".new").write_text(json.dumps(curves))
        os.replace(done.with_suffix(".new"), done)
    network.load_state_dict(load_file(done.with_suffix(".safetensors")))
    network.eval()
    return [tuple(point) for point in json.loads(done.read_text())]


def run(network: Network, stage: Stage, params: Any, work: TrainingContext) -> Curves:
    """All epochs that are left."""
    batches = Batches(
        stage.learnt,
        params.batch_size,
        params.hidden_ngrams,
        params.seed,
        lambda: task.current_epoch,
    )
    task = Task(network, params, stage.epochs * len(batches))
    trainer = make_trainer(stage.epochs, [Progress(stage, work)], work.trainer)
    checkpoint = checkpoint_at(work.folder / f"{stage.name}.ckpt")
    trainer.fit(task, batches, ckpt_path=checkpoint, weights_only=True)
    return task.curves


def scores_of(network: Network, bags: Bags) -> Tensor:
    """Averaged log-probabilities of the questions: (n, intents)."""
    was_training = network.training
    network.eval()
    scores = []
    with torch.inference_mode():
        for start in range(0, len(bags), ASKED):
            index = np.arange(start, min(start + ASKED, len(bags)))
            rows, starts, _ = bags.take(index).batch()
            scores.append(network(network.hidden_of_bags(rows, starts)))
    network.train(was_training)
    return torch.cat(scores)


def accuracy_of(network: Network, bags: Bags) -> float:
    """Share of the questions whose likeliest intent is right."""
    return float((scores_of(network, bags).argmax(1).numpy() == bags.labels).mean())
