"""One publisher of a model at a time, on one machine."""

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from kreislauf import object_store
from kreislauf.release.triton import TritonError
from kreislauf.settings import settings

LOCK_SECONDS = 600.0
"""Longest wait for another publisher of the same model: a load, its questions, a restart."""


@contextmanager
def exclusive(model: str) -> Iterator[None]:
    """Hold off every other publisher of this model repository; the lock ends with the process.

    A repository on S3 holds off those on this machine; between machines the release log decides
    alone. Raises TritonError, with the process to end, if another publisher does not let go.
    """
    fs, path = object_store.locate(settings().triton_repository, model)
    folder = settings().home / "locks" / model
    if object_store.is_local(fs):
        folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a+") as file:
        _take(file, model)
        file.truncate(0)
        file.write(f"{os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield


def _take(file: TextIO, model: str) -> None:
    """Wait for the lock on a file, as long as any publisher may take."""
    end = time.monotonic() + LOCK_SECONDS
    while True:
        with suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        if time.monotonic() >= end:
            file.seek(0)
            raise TritonError(
                f"Something publishes {model} and has not ended for {LOCK_SECONDS:.0f} s: process "
                f"{file.read() or 'unknown'}. If it hangs, end it, and try again."
            )
        time.sleep(0.1)
