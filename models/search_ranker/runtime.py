"""Settings of the libraries while a model is trained: few messages, and one thread."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

LOGGERS = ("lightning.pytorch", "lightning.fabric", "torch.onnx", "onnxscript")


@contextmanager
def calm() -> Iterator[None]:
    """One thread for torch, and no messages of Lightning and the exporter about each other.

    Steps this small lose more to threads that wait for each other than they gain, and results stay
    the same.
    """
    loggers = [logging.getLogger(name) for name in LOGGERS]
    levels = [logger.level for logger in loggers]
    threads = torch.get_num_threads()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            torch.set_num_threads(1)
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            torch.set_num_threads(threads)
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
