"""Checkpoints of a training in steps, from which it goes on when it was killed."""

import atexit
import os
from pathlib import Path
from typing import Any, Protocol

import lightning
import torch
from lightning.pytorch.callbacks import Callback

from models.spec import TrainingContext


class StepBatches(Protocol):
    """Batches of an epoch, some of which may be done already."""

    rank: int
    processes: int
    done: int

    def __len__(self) -> int: ...


class StepCheckpoints(Callback):
    """A checkpoint in `last.ckpt` every so many steps. Steps decide, not seconds, so that all
    processes agree."""

    def __init__(self, folder: Path, batches: StepBatches, work: TrainingContext, steps: int):
        """`steps` are the most that a killed training loses."""
        self.folder = folder
        self.batches = batches
        self.work = work
        self.steps = steps

    def on_fit_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Tell the batches which share of each is this process's."""
        self.batches.rank = trainer.global_rank
        self.batches.processes = trainer.world_size
        if trainer.world_size > 1:
            atexit.register(leave_process_group)

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Report, and write a checkpoint, if it is time; the old one stays until the new one is
        whole."""
        self.report_step(trainer, pl_module)
        if trainer.global_step % self.steps == 0 and not trainer.is_last_batch:
            self.ask_to_write(trainer)
            self.batches.done = batch_idx + 1
            trainer.save_checkpoint(self.folder / "new.ckpt")
            self.batches.done = 0
            if trainer.is_global_zero:
                os.replace(self.folder / "new.ckpt", self.folder / "last.ckpt")

    def report_step(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Report how far the training is, as the model type does."""

    def ask_to_write(self, trainer: lightning.Trainer) -> None:
        """Raise, in the main process, if another training writes into the folder."""
        if trainer.is_global_zero:
            self.work.before_write()


def leave_process_group() -> None:
    """End the threads that connect the processes.

    One that still runs when its process exits may abort it.
    """
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def checkpoint_at(path: Path) -> str | None:
    """The checkpoint at `path`, as Lightning takes it; None if there is none."""
    return str(path) if path.exists() else None
