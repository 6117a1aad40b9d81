"""Rows of the tables `events` and `text_events`, in OTTO's format.

One line is a session, one row an event in it.
"""

from dataclasses import replace
from typing import Annotated, Literal

import msgspec
import pandera.polars as pa
import polars as pl

from models import fields
from models.fields import Id, Natural
from models.table import Table

EVENT_TYPES = ("clicks", "carts", "orders")


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
    ts: pl.Int64 = fields.time()
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


class TextEvent(Event):
    """What a validated event promises whose ids are text."""

    session: str = fields.name()  # type: ignore[assignment]
    aid: str = fields.name("article id; a number is its digits")  # type: ignore[assignment]


TEXT_EVENTS = replace(EVENTS, name="text_events", line=RawTextSession, schema=TextEvent)
