"""A flow that waits, for tests that stop its process in the middle."""

import os
import time
from pathlib import Path

from prefect import flow


@flow
def wait(folder: str) -> None:
    """Note that a process began; end when there is a file called `end`."""
    with (Path(folder) / "processes").open("a") as log:
        log.write(f"{os.getpid()}\n")
    while not (Path(folder) / "end").exists():
        time.sleep(0.5)
