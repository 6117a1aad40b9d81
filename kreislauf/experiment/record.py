"""The table `looks`: what was seen of experiments, and what came of it, each look exactly once."""

import polars as pl
from pydantic import BaseModel, ConfigDict

from kreislauf.clock import DAY_MS
from kreislauf.experiment.users import Counts
from kreislauf.experiment.verdict import Look, Verdict
from kreislauf.lake import journal

LOOKS = "looks"
SHOWN = 10
"""Newest looks that people are shown."""


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

    @property
    def begin(self) -> int:
        """Time of the first answer: ms since 1970 UTC."""
        return self.look.at - round(self.look.days * DAY_MS)


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


def read(model: str, release: int) -> list[Record]:
    """The looks at one experiment, oldest first."""
    rows = journal.read(LOOKS, model=model, release=release)
    if rows.is_empty():
        return []
    return [Record.model_validate_json(text) for text in rows.sort("at")["record"]]


def selection(looks: list[Record]) -> list[Record]:
    """Those of the looks that people are shown: the planned ones, and the newest `SHOWN`."""
    return [each for each in looks[:-SHOWN] if each.look.number] + looks[-SHOWN:]


def newest(model: str) -> dict[int, Record]:
    """The newest look at each experiment of a model type, by the number of its release."""
    rows = journal.read(LOOKS, model=model)
    if rows.is_empty():
        return {}
    last = rows.sort("at").group_by("release").last()
    texts = last.select("release", "record").iter_rows()
    return {release: Record.model_validate_json(text) for release, text in texts}
