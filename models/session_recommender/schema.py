"""Rows of the table `events`, in OTTO's format: one line is a session, one row an event in it."""

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
import numpy as np
import pandera.polars as pa
import polars as pl

from models.spec import Table

EVENT_TYPES = ("clicks", "carts", "orders")
Natural = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class RawEvent(msgspec.Struct):
    aid: Natural
    ts: Natural
    type: Literal["clicks", "carts", "orders"]


class RawSession(msgspec.Struct):
    session: Natural
    events: Annotated[list[RawEvent], msgspec.Meta(min_length=1)]


class Event(pa.DataFrameModel):
    """What a validated event promises."""

    session: pl.Int64 = pa.Field(ge=0)
    aid: pl.Int64 = pa.Field(ge=0, description="raw article id")
    ts: pl.Int64 = pa.Field(ge=946_684_800_000, lt=4_102_444_800_000, description="ms since 1970 UTC, in 2000..2099")
    type: pl.String = pa.Field(isin=EVENT_TYPES)

    class Config:
        strict = True


def unfold(sessions: Sequence[RawSession]) -> pl.DataFrame:
    """One row per event, columns line, session, aid, ts, type."""
    lengths = np.fromiter((len(s.events) for s in sessions), np.int64, len(sessions))
    events = [e for s in sessions for e in s.events]
    return pl.DataFrame(
        {
            "line": np.repeat(np.arange(len(sessions)), lengths),
            "session": np.repeat(np.fromiter((s.session for s in sessions), np.int64, len(sessions)), lengths),
            "aid": np.fromiter((e.aid for e in events), np.int64, len(events)),
            "ts": np.fromiter((e.ts for e in events), np.int64, len(events)),
            "type": pl.Series([e.type for e in events], dtype=pl.String),
        }
    )


EVENTS = Table(
    name="events",
    line=RawSession,
    unfold=unfold,
    schema=Event,
    key=("session", "aid", "ts", "type"),
    time="ts",
    group="session",
)
