"""One fit with Lightning: objective, checkpoints, progress, one process or many."""

import json
import os
from pathlib import Path
from typing import Any

import lightning
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from models.checkpoints import StepCheckpoints, checkpoint_at
from models.runtime import make_trainer, seed_step
from models.search_ranker.batches import Batch, Batches
from models.search_ranker.network import Scorer
from models.search_ranker.vocabulary import UNSEEN
from models.spec import TrainingContext

CHECKPOINT_STEPS = 100
"""Maximum steps that a killed training loses."""
HIDDEN_CATEGORIES = 0.05
"""Share of the categories that a step hides, so that it learns what to do with unseen ones."""
FASTER = 10
"""How much higher the learning rate of what is learnt of each category is: a step has few results
with each."""
LOG_EVERY = 20
"""Steps from one point of the loss curve to the next."""


class Task(lightning.LightningModule):
    """Squared error of scores and targets, each as the difference from the mean of its list.

    On judged lists it orders better than the listwise softmax, which looks at little but the best
    results (benchmarks/ranker.py). A member does not learn from the lists of its own part of the
    queries, which judge it.
    """

    parts: Tensor
    """int64 (members,): the part of the queries that each member does not learn from."""

    def __init__(self, scorer: Scorer, members: Tensor, params: Any, unit: float):
        super().__init__()
        self.unit = unit
        self.scorer = scorer
        self.register_buffer("parts", members)
        self.params = params
        self.curves: list[tuple[str, int, float]] = []

    def training_step(self, batch: Batch, step: int) -> Tensor:
        """Loss of a step, whose random numbers depend on its number alone."""
        seed_step(self, self.params.seed)
        loss = self.loss(batch)
        if self.global_step % LOG_EVERY == 0:
            self.curves.append(("train_loss", self.global_step, float(loss.detach())))
        return loss

    def loss(self, batch: Batch) -> Tensor:
        """Mean over the results of each member; targets are measured in `unit`."""
        present = batch.gains >= 0
        columns = self.scorer.scaling(batch.features, present)
        columns = columns + self.params.noise * torch.randn_like(columns)
        is_hidden = torch.rand_like(batch.categories, dtype=torch.float) < HIDDEN_CATEGORIES
        categories = torch.where(is_hidden, UNSEEN, batch.categories)
        scores = self.scorer.members(
            columns, present, categories, self.params.feature_dropout, self.params.dropout
        )
        errors = centred(scores, present) - centred(batch.targets / self.unit, present)
        losses = (errors**2).sum(2)
        learns = (self.parts[:, None] != batch.folds[None]).float()
        results = learns @ present.sum(1).float()
        by_member = (losses * learns).sum(1) / results.clamp(min=1)
        # A sum: the members have nothing in common.
        return by_member.sum()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the curves to the checkpoint."""
        checkpoint["curves"] = self.curves

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the curves from the checkpoint."""
        self.curves = [tuple(point) for point in checkpoint["curves"]]

    def configure_optimizers(self) -> Any:
        """AdamW; the rate rises for a seventh of the steps and then falls to zero."""
        named = dict(self.scorer.members.named_parameters())
        vectors = named.pop("categories.vectors", None)
        groups: list[dict[str, Any]] = [{"params": [*named.values()]}]
        rates = [self.params.lr]
        if vectors is not None:
            groups.append({"params": [vectors]})
            rates.append(FASTER * self.params.lr)
        optimizer = torch.optim.AdamW(groups, self.params.lr, weight_decay=self.params.decay)
        steps = self.params.steps + 1
        # A rise of a single step would divide by zero.
        rise = max(0.15, 2 / steps)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, rates, total_steps=steps, pct_start=rise
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Progress(StepCheckpoints):
    """Checkpoints and reports."""

    def report_step(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Report every so many steps, by the main process alone."""
        if trainer.is_global_zero and trainer.global_step % LOG_EVERY == 0:
            self.work.report(trainer.global_step / len(self.batches), {})

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Leave what `fit` reads, which may be another process."""
        self.ask_to_write(trainer)
        if trainer.is_global_zero:
            folder = self.folder
            state = pl_module.scorer.state_dict()
            save_file({name: t.cpu().contiguous() for name, t in state.items()}, folder / FITTED)
            (folder / "new.json").write_text(json.dumps(pl_module.curves))
            os.replace(folder / "new.json", folder / DONE)


def centred(values: Tensor, present: Tensor) -> Tensor:
    """Differences from the mean of each list, 0 where there is no result; values are (...,
    results)."""
    results = values * present
    return (results - results.sum(-1, keepdim=True) / present.sum(-1, keepdim=True)) * present


FITTED = "fitted.safetensors"
DONE = "done.json"


def fit(task: Task, batches: Batches, work: TrainingContext) -> None:
    """Train the task's scorer in place.

    `work.folder` continues a fit that was begun, and keeps one that was finished.
    """
    folder: Path = work.folder
    if not (folder / DONE).exists():
        checkpoint = checkpoint_at(folder / "last.ckpt")
        progress = Progress(folder, batches, work, CHECKPOINT_STEPS)
        trainer = make_trainer(1, [progress], work.trainer)
        loader: Any = batches
        trainer.fit(task, loader, ckpt_path=checkpoint, weights_only=True)
    task.curves = [tuple(point) for point in json.loads((folder / DONE).read_text())]
    task.scorer.load_state_dict(load_file(folder / FITTED))
    task.scorer.cpu().eval()
