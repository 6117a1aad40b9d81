"""One fit with Lightning: checkpoints, progress, one process or many."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback, EarlyStopping
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader

from models.checkpoints import StepCheckpoints, checkpoint_at
from models.runtime import make_trainer
from models.session_recommender import objectives
from models.session_recommender.batches import Batches
from models.session_recommender.objectives import Task
from models.spec import TrainingContext

CHECKPOINT_STEPS = 200
"""Maximum steps that a killed training loses."""


@dataclass(frozen=True)
class Stage:
    """One stage of a training: a task, what it learns from, and for how long."""

    name: str
    """Folder of its checkpoints."""
    task: Task
    batches: Batches
    validation: list = field(default_factory=list)
    """Batches that choose the epoch; without them it is the last one."""
    epochs: int = 1
    trainer: dict[str, Any] = field(default_factory=dict)
    """Arguments of lightning.Trainer, as of `TrainingContext.trainer`."""
    progress: tuple[float, float] = (0.0, 1.0)
    """Share of the whole training that is done before and after it."""


@dataclass(frozen=True)
class ProgressSlice:
    """Report of a stage, as a slice of the report of the whole training."""

    report: Callable[[float, dict[str, float]], None]
    start: float
    end: float

    def __call__(self, share: float, metrics: dict[str, float]) -> None:
        """Report that `share` of the slice is done."""
        self.report(self.start + share * (self.end - self.start), metrics)


class Progress(StepCheckpoints):
    """Checkpoints and reports."""

    def __init__(
        self,
        folder: Path,
        batches: Batches,
        work: TrainingContext,
        report: Callable[[float, dict[str, float]], None],
    ):
        super().__init__(folder, batches, work, CHECKPOINT_STEPS)
        self.report = report

    def report_step(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Report every so many steps."""
        if trainer.global_step % objectives.LOG_EVERY == 0:
            self._report(trainer, pl_module)

    def on_validation_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Report the end of an epoch."""
        self._report(trainer, pl_module)

    def _report(self, trainer: lightning.Trainer, task: Any) -> None:
        """Report the share of the steps and the newest validation, by the main process alone."""
        if not trainer.is_global_zero:
            return
        recalls = [value for name, _, value in task.curves if name == "validation_recall"]
        metrics = {}
        if recalls:
            metrics = {"recall@20": recalls[-1], "validation": task.best}
        self.report(trainer.global_step / task.steps, metrics)

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Leave what `fit` reads, which may be another process."""
        self.ask_to_write(trainer)
        if trainer.is_global_zero:
            write_result(self.folder, pl_module, is_validated=bool(trainer.val_dataloaders))


def write_result(folder: Path, task: Any, is_validated: bool) -> None:
    """Write the best weights and then the curves, which are the sign of a finished training."""
    state = task.state()
    if is_validated:
        state = task.best_state
    save_file(state, folder / "best.safetensors")
    (folder / "new.json").write_text(json.dumps({"best": task.best, "curves": task.curves}))
    os.replace(folder / "new.json", folder / "done.json")


def fit(stage: Stage, work: TrainingContext) -> None:
    """Train the stage's network in place to the weights of its best epoch.

    The stage's folder in `work.folder` continues a fit that was begun, and keeps one that was
    finished. Without validation the last epoch is the best. `task.curves` and `task.best` are those
    of the whole fit. Without batches nothing happens.
    """
    if not len(stage.batches):
        return
    task = stage.task
    folder = work.folder / stage.name
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "done.json").exists():
        task.steps = len(stage.batches) * stage.epochs
        report = ProgressSlice(work.report, *stage.progress)
        checkpoints = Progress(folder, stage.batches, work, report)
        callbacks: list[Callback] = [checkpoints]
        if stage.validation:
            callbacks.append(EarlyStopping(monitor="recall", mode="max", patience=1))
        trainer = make_trainer(stage.epochs, callbacks, stage.trainer)
        loader: Any = None
        if stage.validation:
            loader = DataLoader(stage.validation, batch_size=None)  # type: ignore[arg-type]
        checkpoint = checkpoint_at(folder / "last.ckpt")
        trainer.fit(task, stage.batches, loader, ckpt_path=checkpoint, weights_only=True)
    done = json.loads((folder / "done.json").read_text())
    task.network.load_state_dict(load_file(folder / "best.safetensors"))
    task.network.eval()
    task.best = done["best"]
    task.curves = [tuple(point) for point in done["curves"]]
