"""A training that kills itself with SIGKILL before one of its writes, for `test_every_model.py`.

`python -m tests.models.killed MODEL ROWS FOLDER WRITE`; writes count from 1.
"""

import itertools
import os
import signal
import sys
from pathlib import Path

import polars as pl

from models import spec
from models.spec import TrainingContext


def train(name: str, rows: Path, folder: Path, last: int) -> None:
    """Train as the tests do, until the write number `last`."""
    writes = itertools.count(1)

    def before_write() -> None:
        if next(writes) == last:
            os.kill(os.getpid(), signal.SIGKILL)

    model_type = spec.load(name)
    work = TrainingContext(folder, before_write=before_write)
    model_type.train(pl.read_ipc(rows), model_type.Params.tiny(), work)


if __name__ == "__main__":
    train(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
