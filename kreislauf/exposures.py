"""What the gateway saw: answers that were shown, what people did with them, and their tables.

The gateway writes both as segments of JSON lines, which `flows/ingest.py` lands like any raw file.
An exposure and its feedback are joined by `request_id`.
"""

import hmac
from functools import cache
from hashlib import blake2b
from typing import Annotated, Literal, get_args

import msgspec
import pandera.polars as pa
import polars as pl

from models.table import Table

Variant = Literal["champion", "challenger", "fallback"]
Arm = Literal["champion", "challenger"]
Kind = Literal["click", "cart", "order"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)
ARMS: tuple[Arm, ...] = get_args(Arm)
KINDS: tuple[Kind, ...] = get_args(Kind)
Natural = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
EARLIEST = 946_684_800_000
"""Minimum `ts`, ms since 1970 UTC: the start of 2000."""
LATEST = 4_102_444_800_000
"""Bound that a `ts` stays below, ms since 1970 UTC: the start of 2100."""
MATURITY_MS = 3_600_000
"""Time after an answer in which people may still react to it; younger answers are not counted."""
COLLECTING = ".collecting"
"""Name of a file in the gateway's folder of segments, while `collect` waits for the open one."""
PSEUDONYMS = "pseudonyms"
"""Purpose of the key that makes them."""


def pseudonym(user: str, key: bytes) -> str:
    """A user's name in the exposures, the same in every experiment: the mark of the key, a dash,
    and 16 hex digits that nobody without the key finds by trying all users."""
    digest = hmac.digest(key, unkeyed_pseudonym(user).encode(), "sha256")
    return f"{key_mark(key)}-{digest.hex()[:16]}"


def unkeyed_pseudonym(user: str) -> str:
    """A user's name in exposures that were written before pseudonyms had a key."""
    return blake2b(user.encode(), digest_size=8).hexdigest()


@cache
def key_mark(key: bytes) -> str:
    """8 hex digits that tell pseudonyms of this key from those of another."""
    return hmac.digest(key, b"mark", "sha256").hex()[:8]


class Exposure(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """One answer, as the gateway gave it."""

    request_id: str
    ts: Natural
    model: str
    version: Natural
    variant: Variant
    """Who answered."""
    user: str
    """Pseudonym of whom it was shown to; empty if nobody was named."""
    items: str
    """JSON list of what was shown, best first."""
    latency_ms: float
    release: Natural = 0
    """Number of the release that was in force, whose entry in the log has the share and the salt of
    an A/B test; 0 in lines of older gateways."""
    arm: Arm | None = None
    """Who should have answered: what the user was assigned to. None in lines of older gateways."""


class Feedback(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """What somebody did with an answer."""

    request_id: str
    ts: Natural
    model: str
    version: Natural
    variant: Variant
    kind: Kind
    item: str
    """JSON of one of the items shown."""


class ExposureRow(pa.DataFrameModel):
    """Rules of a validated exposure."""

    request_id: str = pa.Field(str_length={"min_value": 1, "max_value": 200})
    ts: pl.Int64 = pa.Field(ge=EARLIEST, lt=LATEST)
    model: str
    version: pl.Int64 = pa.Field(ge=0)
    variant: pl.Enum = pa.Field(dtype_kwargs={"categories": VARIANTS})
    user: str
    items: str
    latency_ms: float = pa.Field(ge=0)
    release: pl.Int64 = pa.Field(ge=0)
    arm: pl.Enum = pa.Field(dtype_kwargs={"categories": ARMS}, nullable=True)

    class Config:
        strict = True


class FeedbackRow(pa.DataFrameModel):
    """Rules of a validated feedback."""

    request_id: str = pa.Field(str_length={"min_value": 1, "max_value": 200})
    ts: pl.Int64 = pa.Field(ge=EARLIEST, lt=LATEST)
    model: str
    version: pl.Int64 = pa.Field(ge=0)
    variant: pl.Enum = pa.Field(dtype_kwargs={"categories": VARIANTS})
    kind: pl.Enum = pa.Field(dtype_kwargs={"categories": KINDS})
    item: str

    class Config:
        strict = True


EXPOSURES = Table(
    name="exposures",
    line=Exposure,
    schema=ExposureRow,
    key=("request_id",),
    time="ts",
    group="request_id",
)
FEEDBACK = Table(
    name="feedback",
    line=Feedback,
    schema=FeedbackRow,
    key=("request_id", "kind", "item"),
    time="ts",
    group="request_id",
)
TABLES = {table.name: table for table in (EXPOSURES, FEEDBACK)}
