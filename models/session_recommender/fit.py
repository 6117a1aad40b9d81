"""One training with Lightning: checkpoints, progress, one process or many"""

import atexit
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader

from models.session_recommender import objectives
from models.session_recommender.batches import Batches
from models.session_recommender.objectives import Task

CHECKPOINT_STEPS = 200
"""A killed training loses at most so many steps."""


class Progress(Callback):
    """Checkpoints and reports. Steps decide, not seconds, so that all processes agree."""

    def __init__(
        self, folder: Path, batches: Batches, report: Callable[[float, dict[str, float]], None]
    ):
        self.folder = folder
        self.batches = batches
        self.report = report

    def on_fit_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Tells the batches which share of each is this process's."""
        self.batches.rank = trainer.global_rank
        self.batches.processes = trainer.world_size
        if trainer.world_size > 1:
            atexit.register(part)

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Every `CHECKPOINT_STEPS`, what is needed to go on is on disk; an old file stays until the
        new is whole."""
        if trainer.global_step % objectives.LOG_EVERY == 0:
            self._tell(trainer, pl_module)
        if trainer.global_step % CHECKPOINT_STEPS == 0 and not trainer.is_last_batch:
            self.batches.done = batch_idx + 1
            trainer.save_checkpoint(self.folder / "new.ckpt")
            self.batches.done = 0
            if trainer.is_global_zero:
                os.replace(self.folder / "new.ckpt", self.folder / "last.ckpt")

    def on_validation_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """An epoch is over."""
        self._tell(trainer, pl_module)

    def _tell(self, trainer: lightning.Trainer, task: Any) -> None:
        recalls = [value for name, _, value in task.curves if name == "validation_recall"]
        if trainer.is_global_zero:
            self.report(
                trainer.global_step / task.steps,
                {"recall@20": recalls[-1], "validation": task.best} if recalls else {},
            )

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Leaves what `fit` reads, which may be another process."""
        if trainer.is_global_zero:
            write(self.folder, pl_module, validated=bool(trainer.val_dataloaders))


def part() -> None:
    """End the threads that connect the processes: one that still runs when its process exits may
    abort it."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def write(folder: Path, task: Any, validated: bool) -> None:
    """The best weights and the curves of a finished training; the curves are the sign that it is
    finished."""
    save_file(task.best_state if validated else task.state(), folder / "best.safetensors")
    (folder / "new.json").write_text(json.dumps({"best": task.best, "curves": task.curves}))
    os.replace(folder / "new.json", folder / "done.json")


def fit(
    task: Task,
    batches: Batches,
    validation: list,
    epochs: int,
    folder: Path,
    trainer: dict,
    report: Callable,
) -> None:
    """Trains `task.network` in place to the weights of its best epoch; continues or skips what
    `folder` has already.

    Without validation the last epoch is the best. `task.curves` and `task.best` are those of the
    whole training.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "done.json").exists():
        task.steps = len(batches) * epochs
        last = folder / "last.ckpt"
        stop = EarlyStopping(monitor="recall", mode="max", patience=1)
        where = {"accelerator": "cpu", "devices": 1} | trainer
        fitter = lightning.Trainer(
            max_epochs=epochs,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            callbacks=[Progress(folder, batches, report), *([stop] if validation else [])],
            **where,
        )
        loader: Any = DataLoader(validation, batch_size=None) if validation else None  # type: ignore[arg-type]
        fitter.fit(
            task, batches, loader, ckpt_path=str(last) if last.exists() else None, weights_only=True
        )
    done = json.loads((folder / "done.json").read_text())
    task.network.load_state_dict(load_file(folder / "best.safetensors"))
    task.network.eval()
    task.best = done["best"]
    task.curves = [tuple(point) for point in done["curves"]]
