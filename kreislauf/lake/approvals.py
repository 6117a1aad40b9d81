"""What a person was asked about a version, and when the answer was no, in the table `approvals`.

Who says yes makes the version live: that is in the release log.
"""

import time
from typing import Literal

import polars as pl

from kreislauf.lake import journal

APPROVALS = "approvals"
"""Name of the table in the lake."""


def record(model: str, version: int, state: Literal["asked", "declined"], text: str) -> None:
    """Store the question, or the name of who said no with a comment, once for each version."""
    row = {"model": model, "version": version, "state": state, "text": text}
    row["at"] = int(time.time() * 1000)
    journal.append_once(APPROVALS, f"{model}/{version}/{state}", pl.DataFrame([row]))
