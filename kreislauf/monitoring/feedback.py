"""What people did with the answers they were shown: clicks per answer, over time and by variant"""

import numpy as np
import polars as pl

from kreislauf.clock import DAY_MS
from kreislauf.evaluation.intervals import interval
from kreislauf.exposures import KINDS

MATURITY_MS = 3_600_000
"""So long after an answer nobody reacts to it any more; younger answers are not judged yet."""
USUAL_DAYS = 28
LEAST_ANSWERS = 100
"""Days before a window from which it is learnt what is usual, if they have so many answers."""
SAMPLE = 50_000
"""Answers, about, of whole users, in what is joined."""


def joined(shown: pl.LazyFrame, done: pl.LazyFrame) -> pl.DataFrame:
    """Rows of exposures with what became of them, by request id: columns ts, user, version,
    variant, and whether there was a `click`, `cart` or `order`. Of more than `SAMPLE` answers,
    those of users drawn by their hash."""
    thin = max(1, round(shown.select(pl.len()).collect(engine="streaming").item() / SAMPLE))
    drawn = shown.filter(pl.col("user").hash(0) % thin == 0).select(
        "request_id", "ts", "user", "version", "variant"
    )
    kinds = [(pl.col("kind") == kind).any().alias(kind) for kind in KINDS]
    found = drawn.join(done.group_by("request_id").agg(kinds), on="request_id", how="left")
    return (
        found.with_columns(pl.col(KINDS).fill_null(False))
        .drop("request_id")
        .collect(engine="streaming")
    )


def clicks(
    reactions: pl.DataFrame, version: int, start: int
) -> dict[str, tuple[float, list[float]]]:
    """The signal `clicks` of what was `joined`: clicks per answer of the champion `version` since
    `start` (ms), and of all champions on each day before that had enough answers; nothing if there
    are none."""
    if reactions.is_empty():
        return {}
    champion = reactions.filter(pl.col("variant") == "champion")
    now = champion.filter(pl.col("ts") >= start, pl.col("version") == version)["click"].mean()
    days = (
        champion.filter(pl.col("ts") < start)
        .group_by(pl.col("ts") // DAY_MS)
        .agg(pl.len(), pl.col("click").mean())
    )
    usual = days.filter(pl.col("len") >= LEAST_ANSWERS)["click"].to_list()
    return {} if now is None else {"clicks": (float(now), usual)}  # type: ignore[arg-type]


def by_variant(reactions: pl.DataFrame) -> list[tuple]:
    """Version, variant, answers, and clicks per answer with its interval over users, of what was
    `joined`."""
    found = []
    for (version, variant), part in reactions.sort("version", "variant").group_by(
        "version", "variant", maintain_order=True
    ):
        _, users = np.unique(part["user"].to_numpy(), return_inverse=True)
        told = interval(part["click"].cast(pl.Float64).to_numpy(), users, 0.95)
        found.append((version, variant, part.height, told))
    return found
