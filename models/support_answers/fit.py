"""The fit of the networks with Lightning; one that was killed goes on from its last epoch."""

import json
import os
from pathlib import Path
from typing import Any

import lightning
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import Callback
from safetensors.torch import load_file, save_file
from torch import Tensor

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


class Progress(Callback):
    """A checkpoint and a report after each epoch."""

    def __init__(self, folder: Path, held_out: Bags, work: TrainingContext):
        self.folder = folder
        self.held_out = held_out
        self.work = work

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Measure the accuracy; write the checkpoint beside the old one, then put it in place."""
        assert isinstance(pl_module, Task)
        accuracy = accuracy_of(pl_module.network, self.held_out)
        pl_module.curves.append(("validation_accuracy", trainer.current_epoch, accuracy))
        done = (trainer.current_epoch + 1) / (trainer.max_epochs or 1)
        self.work.report(done, {"accuracy": accuracy, "validation": accuracy})
        self.work.before_write()
        trainer.save_checkpoint(self.folder / "new.ckpt")
        os.replace(self.folder / "new.ckpt", self.folder / "last.ckpt")


def fit(
    network: Network,
    learnt: Bags,
    held_out: Bags,
    params: Any,
    work: TrainingContext,
    is_warm: bool,
) -> Curves:
    """Train the networks in place, and round their vectors as they are served. Returns the curves.

    `fit.json` in `work.folder` says that the fit was finished before.
    """
    done = work.folder / "fit.json"
    if not done.exists():
        curves = run(network, learnt, held_out, params, work, is_warm)
        work.before_write()
        save_file(network.state_dict(), work.folder / "fit.safetensors")
        (work.folder / "new.json").write_text(json.dumps(curves))
        os.replace(work.folder / "new.json", done)
    network.load_state_dict(load_file(work.folder / "fit.safetensors"))
    network.eval()
    return [tuple(point) for point in json.loads(done.read_text())]


def run(
    network: Network,
    learnt: Bags,
    held_out: Bags,
    params: Any,
    work: TrainingContext,
    is_warm: bool,
) -> Curves:
    """All epochs that are left."""
    epochs = params.epochs
    if is_warm:
        epochs = params.warm_epochs
    batches = Batches(
        learnt, params.batch_size, params.hidden_ngrams, params.seed, lambda: task.current_epoch
    )
    task = Task(network, params, epochs * len(batches))
    place: dict[str, Any] = {"accelerator": "cpu", "devices": 1}
    trainer = lightning.Trainer(
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        callbacks=[Progress(work.folder, held_out, work)],
        **place | work.trainer,
    )
    last = work.folder / "last.ckpt"
    checkpoint = None
    if last.exists():
        checkpoint = str(last)
    trainer.fit(task, batches, ckpt_path=checkpoint, weights_only=True)
    return task.curves


def scores_of(network: Network, bags: Bags) -> Tensor:
    """Averaged log-probabilities of the questions: (n, intents)."""
    was_training = network.training
    network.eval()
    scores = []
    with torch.inference_mode():
        for start in range(0, len(bags), ASKED):
            index = range(start, min(start + ASKED, len(bags)))
            rows, starts, _ = bags.take(torch.tensor(index).numpy()).batch()
            scores.append(network(network.hidden_of_bags(rows, starts)))
    network.train(was_training)
    return torch.cat(scores)


def accuracy_of(network: Network, bags: Bags) -> float:
    """Share of the questions whose likeliest intent is right."""
    return float((scores_of(network, bags).argmax(1).numpy() == bags.labels).mean())
