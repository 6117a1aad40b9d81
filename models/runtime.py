"""How a training runs: few messages, one thread, Lightning's trainer, and seeds."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback


@contextmanager
def silence_libraries() -> Iterator[None]:
    """Silence the messages of Lightning and the exporter about devices, workers and each other."""
    loggers = [
        logging.getLogger(name)
        for name in ("lightning.pytorch", "lightning.fabric", "torch.onnx", "onnxscript")
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
    """Let torch use one thread.

    Steps this small lose more to threads that wait for each other than they gain, and results stay
    the same.
    """
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(threads)


def make_trainer(
    epochs: int, callbacks: Sequence[Callback], options: dict[str, Any]
) -> lightning.Trainer:
    """Lightning's trainer, which writes and shows nothing itself; by default on one CPU.

    `options` are those of `TrainingContext.trainer`.
    """
    place: dict[str, Any] = {"accelerator": "cpu", "devices": 1}
    return lightning.Trainer(
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        callbacks=[*callbacks],
        **place | options,
    )


def seed_step(task: lightning.LightningModule, seed: int) -> None:
    """Make the random numbers of a step depend on its number alone, so that a resumed training
    repeats them."""
    number = (seed * 1_000_003 + task.global_step) * 1_009 + task.global_rank
    # Without a GPU, torch.manual_seed remembers every call, with its stack, until there is one.
    if task.device.type == "cpu":
        torch.default_generator.manual_seed(number)
    else:
        torch.manual_seed(number)
