"""Rows of the tables `events` and `text_events`, in OTTO's format.

One line is a session, one row an event in it.
"""

from dataclasses import replace
from typing import Annotated, Literal

import msgspec
import pandera.polars as pa
import polars as pl

from models.table import Table

EVENT_TYPES = ("clicks", "carts", "orders")
FIRST_MS = 946_684_800_000
"""2000-01-01 UTC: what is earlier was not meant as ms."""
END_MS = 4_102_444_800_000
"""2100-01-01 UTC."""
LONGEST_ID = 100
"""Most characters of an id that is text."""
Natural = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Id = Annotated[str, msgspec.Meta(min_length=1, max_length=LONGEST_ID)] | int


class RawEvent(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    aid: Natural
    ts: Natural
    type: Literal["clicks", "carts", "orders"]


class RawSession(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    session: Natural
    events: Annotated[list[RawEvent], msgspec.Meta(min_length=1)]


class Event(pa.DataFrameModel):
    """What a validated event promises."""

    session: pl.Int64 = pa.Field(ge=0)
    aid: pl.Int64 = pa.Field(ge=0, description="raw article id")
    ts: pl.Int64 = pa.Field(ge=FIRST_MS, lt=END_MS, description="ms since 1970 UTC, in 2000..2099")
    type: pl.Enum = pa.Field(dtype_kwargs={"categories": EVENT_TYPES})

    class Config:
        strict = True


EVENTS = Table(
    name="events",
    line=RawSession,
    schema=Event,
    key=("session", "aid", "ts", "type"),
    time="ts",
    group="session",
)


class RawTextEvent(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    aid: Id
    ts: Natural
    type: Literal["clicks", "carts", "orders"]


class RawTextSession(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    session: Id
    events: Annotated[list[RawTextEvent], msgspec.Meta(min_length=1)]


ID_LENGTH = {"min_value": 1, "max_value": LONGEST_ID}


class TextEvent(Event):
    """What a validated event promises whose ids are text."""

    session: str = pa.Field(str_length=ID_LENGTH)  # type: ignore[assignment]
    aid: str = pa.Field(  # type: ignore[assignment]
        str_length=ID_LENGTH, description="article id; a number is its digits"
    )


TEXT_EVENTS = replace(EVENTS, name="text_events", line=RawTextSession, schema=TextEvent)
