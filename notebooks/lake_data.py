"""What the pictures show: the events of the lake, their sessions, and the loads they came with."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from kreislauf import lake
from kreislauf.lake import Accounts
from kreislauf.settings import settings
from models.session_recommender.schema import EVENT_TYPES, EVENTS

DAY = 86_400_000
WEEK = 7 * DAY


@dataclass(frozen=True)
class LakeData:
    """The newest version of the table, and what follows from it."""

    events: pl.DataFrame
    """Rows of the table, with `day`, `week`, and `gap` (ms since the session's event before)."""
    sessions: pl.DataFrame
    """Columns session, when, week, events, pace (events per minute), and whether it has a type."""
    loads: Sequence[Accounts]
    """Accounts of all loads, oldest first."""
    edges: np.ndarray
    """Midnights around the days, datetime64: (days + 1,)."""

    @property
    def clicks(self) -> pl.DataFrame:
        """The events that are clicks."""
        return self.events.filter(pl.col("type") == "clicks")

    @property
    def days(self) -> int:
        """Number of days from the first event to the last."""
        return len(self.edges) - 1

    @property
    def lines(self) -> int:
        """Number of lines that came; those of a replay came before."""
        return sum(load.lines_in for load in self.loads if load.kind != "replay")


def output_folder(arguments: list[str]) -> Path:
    """The folder of the pictures: the first argument, or `explore` in KREISLAUF_HOME."""
    if arguments:
        return Path(arguments[0])
    return settings().home / "explore"


def read() -> LakeData:
    """Everything in the lake. Exits with a message if there is nothing to look at."""
    events = read_events()
    first_day = int(events["ts"].to_numpy().min()) // DAY * DAY
    days = int(events["day"].to_numpy().max()) + 1
    edges = np.datetime64(first_day, "ms") + np.arange(days + 1) * np.timedelta64(DAY, "ms")
    sessions = events.group_by("session", maintain_order=True).agg(
        when=pl.from_epoch(pl.first("ts"), "ms"),
        week=pl.first("week"),
        events=pl.len(),
        pace=60_000 / pl.median("gap").clip(1),
        **{name: (pl.col("type") == name).any() for name in EVENT_TYPES},
    )
    return LakeData(events, sessions, lake.history(EVENTS), edges)


def read_events() -> pl.DataFrame:
    """Events with their day, week and gap. Exits with a message if there are none."""
    try:
        rows = lake.read(EVENTS)
    except lake.LakeError as error:
        raise SystemExit(f"{error} `ingest` in flows/ingest.py does it.") from None
    if rows.is_empty():
        rules = lake.rejects(EVENTS)["rule"].value_counts(sort=True)["rule"].head(3)
        raise SystemExit(
            f"Table {EVENTS.name} has no rows: all lines were rejected. {'; '.join(rules)}"
        )
    since = pl.col("ts") - pl.col("ts").min() // DAY * DAY
    gap = pl.when(pl.col("session") == pl.col("session").shift()).then(pl.col("ts").diff())
    return rows.with_columns(day=since // DAY, week=since // WEEK, gap=gap)
