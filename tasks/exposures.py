"""What the gateway saw: lines of answers shown, and of what people did with them, with their Delta tables.

The gateway writes them as segments of JSON lines; `flows/ingest.py` lands these like any raw file. An exposure and its
feedback are joined by `request_id`.
"""

from typing import Annotated, Literal, get_args

import msgspec
import numpy as np
import pandera.polars as pa
import polars as pl

from models.spec import Table
from tasks.intervals import interval

Variant = Literal["champion", "challenger", "fallback"]
Kind = Literal["click", "cart", "order"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)
KINDS: tuple[Kind, ...] = get_args(Kind)
Natural = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
MATURITY_MS, DAY_MS = 3_600_000, 86_400_000
"""So long after an answer nobody reacts to it any more; younger answers are not judged yet."""
USUAL_DAYS, LEAST_ANSWERS = 28, 100
"""Days before a window from which it is learnt what is usual, if they have so many answers."""
SAMPLE = 50_000
"""Answers, about, of whole users, in what is joined."""
EARLIEST, LATEST = 946_684_800_000, 4_102_444_800_000
"""Of a `ts`: ms since 1970 UTC, in 2000..2099."""


class Exposure(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """One answer, as the gateway gave it."""

    request_id: str
    ts: Natural
    model: str
    version: Natural
    variant: Variant
    user: str
    """Hash of whom it was shown to."""
    items: str
    """JSON list of what was shown, best first."""
    latency_ms: float


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
    """What a validated exposure promises."""

    request_id: str = pa.Field(str_length={"min_value": 1, "max_value": 200})
    ts: pl.Int64 = pa.Field(ge=EARLIEST, lt=LATEST)
    model: str
    version: pl.Int64 = pa.Field(ge=0)
    variant: pl.Enum = pa.Field(dtype_kwargs={"categories": VARIANTS})
    user: str
    items: str
    latency_ms: float = pa.Field(ge=0)

    class Config:
        strict = True


class FeedbackRow(pa.DataFrameModel):
    """What a validated feedback promises."""

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
    name="exposures", line=Exposure, schema=ExposureRow, key=("request_id",), time="ts", group="request_id"
)
FEEDBACK = Table(
    name="feedback", line=Feedback, schema=FeedbackRow, key=("request_id", "kind", "item"), time="ts",
    group="request_id",
)  # fmt: skip
TABLES = {table.name: table for table in (EXPOSURES, FEEDBACK)}


def joined(shown: pl.LazyFrame, done: pl.LazyFrame) -> pl.DataFrame:
    """Rows of exposures with what became of them, by request id: columns ts, user, version, variant, and whether there
    was a `click`, `cart` or `order`. Of more than `SAMPLE` answers, those of users drawn by their hash."""
    thin = max(1, round(shown.select(pl.len()).collect(engine="streaming").item() / SAMPLE))
    drawn = shown.filter(pl.col("user").hash(0) % thin == 0).select("request_id", "ts", "user", "version", "variant")
    kinds = [(pl.col("kind") == kind).any().alias(kind) for kind in KINDS]
    found = drawn.join(done.group_by("request_id").agg(kinds), on="request_id", how="left")
    return found.with_columns(pl.col(KINDS).fill_null(False)).drop("request_id").collect(engine="streaming")


def clicks(reactions: pl.DataFrame, version: int, start: int) -> dict[str, tuple[float, list[float]]]:
    """The signal `clicks` of what was `joined`: clicks per answer of the champion `version` since `start` (ms), and of
    all champions on each day before that had enough answers; nothing if there are none."""
    if reactions.is_empty():
        return {}
    champion = reactions.filter(pl.col("variant") == "champion")
    now = champion.filter(pl.col("ts") >= start, pl.col("version") == version)["click"].mean()
    days = champion.filter(pl.col("ts") < start).group_by(pl.col("ts") // DAY_MS).agg(pl.len(), pl.col("click").mean())
    usual = days.filter(pl.col("len") >= LEAST_ANSWERS)["click"].to_list()
    return {} if now is None else {"clicks": (float(now), usual)}  # type: ignore[arg-type]


def by_variant(reactions: pl.DataFrame) -> list[tuple]:
    """Version, variant, answers, and clicks per answer with its interval over users, of what was `joined`."""
    found = []
    for (version, variant), part in reactions.sort("version", "variant").group_by(
        "version", "variant", maintain_order=True
    ):
        _, users = np.unique(part["user"].to_numpy(), return_inverse=True)
        told = interval(part["click"].cast(pl.Float64).to_numpy(), users, 0.95)
        found.append((version, variant, part.height, told))
    return found
