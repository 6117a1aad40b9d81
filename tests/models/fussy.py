"""A model type whose trainings do what marks in a folder say, for the tests of the search.

They copy it to a temporary `models/fussy/__init__.py`, beside `models/tiny`. The folder is
`$FUSSY_MARKS`; a mark is a file called `<what>-<number of the trial>`.
"""

import os
import signal
import time
from pathlib import Path
from typing import Annotated, Any

import polars as pl
from models.tiny import Tiny
from pydantic import BaseModel, Field

from models.search import Search
from models.spec import MAX_BATCH, Parity, TrainingContext, TrainingResult


class Params(BaseModel, extra="forbid"):
    x: Annotated[float, Search(0, 1)] = Field(0.2, ge=0, le=1, description="Best at 0.7.")
    size: Annotated[int, Search(1, 64, log=True)] = Field(8, ge=1, description="Of no effect.")
    seed: int = Field(0, ge=0, description="Of no effect.")


class Fussy(Tiny):
    name = "fussy"
    Params = Params
    metric = "accuracy@1"

    def train(self, rows: pl.DataFrame, params: Any, work: TrainingContext) -> TrainingResult:
        marks, number = Path(os.environ["FUSSY_MARKS"]), work.folder.name
        with (marks / "trained").open("a") as log:
            log.write(f"{number} {rows['ts'].max()}\n")
        validation = 0.0 if (marks / f"bad-{number}").exists() else 1 - (params.x - 0.7) ** 2
        for quarter in range(1, 5):
            work.report(quarter / 4, {self.metric: validation * quarter / 4, "loss": 1 / quarter})
        if (marks / f"fail-{number}").exists():
            raise ValueError("the mark says so")
        if (marks / f"die-{number}").exists():
            (marks / f"die-{number}").unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        while (marks / f"hang-{number}").exists():
            time.sleep(0.1)
        parity = Parity(
            inputs=len(rows),
            largest_batch=MAX_BATCH,
            min_overlap=1.0,
            max_difference=0.0,
            passed=True,
        )
        return TrainingResult(
            work.folder / "model.onnx", work.folder / "weights", parity, validation, {}
        )


SPEC = Fussy()
