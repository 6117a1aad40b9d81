"""The model type that `faults.py` keeps fresh; copied into a folder `models`, beside tiny.

It learns from the newest days alone, so that a release follows whenever the shop has changed, and
it takes its time. The processes that train write down when they did.
"""

import json
import os
import time

import polars as pl
from models.tiny import Params, Tiny
from pydantic import Field

from models.spec import TrainingContext, TrainingResult

NEWEST_MS = 6 * 86_400_000
"""Time before the hold-out that is learnt from, ms."""
STEP_SECONDS = 0.5


class SlowParams(Params):
    seconds: float = Field(6.0, ge=0, description="Time that a training takes.")


class Returns(Tiny):
    name = "returns"
    Params = SlowParams

    def train(
        self, rows: pl.DataFrame, params: SlowParams, work: TrainingContext
    ) -> TrainingResult:
        for _ in range(round(params.seconds / STEP_SECONDS)):
            work.before_write()
            note(work)
            time.sleep(STEP_SECONDS)
        newest = rows.filter(pl.col("ts") > pl.col("ts").max() - NEWEST_MS)
        return super().train(newest, params, work)


def note(work: TrainingContext) -> None:
    """Write down that this process trains now."""
    line = {"time": time.time(), "process": os.getpid(), "training": work.folder.name}
    with (work.folder.parents[1] / "processes.jsonl").open("a") as log:
        log.write(json.dumps(line) + "\n")


SPEC = Returns()
