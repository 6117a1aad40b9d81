"""The table `looks`: what was seen of experiments, and what came of it, each look exactly once."""

import polars as pl
from pydantic import BaseModel, ConfigDict

from kreislauf.experiment.users import Counts
from kreislauf.experiment.verdict import Look, Verdict
from kreislauf.lake import journal

LOOKS = "looks"


class Record(BaseModel):
    """A look, and its verdict."""

    model_config = ConfigDict(frozen=True)

    model: str
    release: int
    """Number of the first release of the experiment with this share."""
    look: Look
    counts: Counts
    verdict: Verdict
    flow_run: str = ""


def write(record: Record) -> None:
    """Put a look into the lake, unless one until the same time is there."""
    row = {
        "model": record.model,
        "release": record.release,
        "at": record.look.at,
        "outcome": record.verdict.outcome,
        "reason": record.verdict.reason,
        "record": record.model_dump_json(),
    }
    key = f"{record.model}/{record.release}/{record.look.at}"
    journal.append_once(LOOKS, key, pl.DataFrame([row]))


def read(model: str, release: int | None = None) -> list[Record]:
    """The looks of a model type, oldest first; those of one experiment only, if it is named."""
    values: dict = {"model": model}
    if release is not None:
        values["release"] = release
    rows = journal.read(LOOKS, **values)
    if rows.is_empty():
        return []
    ordered = rows.sort("release", "at")
    return [Record.model_validate_json(text) for text in ordered["record"]]
