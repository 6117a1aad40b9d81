"""The shop of the demo's story, and its periods."""

import numpy as np
import polars as pl

from demo.shop import START_MS, Plan
from kreislauf.clock import DAY_MS

SPANS = {"history": 8, "stable": 2, "season": 4, "fault": 2, "mended": 2}
"""Days of each period."""
STARTS = dict(zip(SPANS, np.cumsum([0, *SPANS.values()]).tolist(), strict=False))
"""Day on which each period begins."""
PLAN = Plan(
    days=sum(SPANS.values()),
    sessions_per_day=700,
    articles=300,
    weekly_churn=0.0,
    change_day=STARTS["season"],
)


def day() -> pl.Expr:
    """Day of the shop on which the session of an event begins."""
    return (pl.col("ts").min().over("session") - START_MS) // DAY_MS


def within(period: str) -> pl.Expr:
    """Whether the session of an event begins in a period."""
    first = STARTS[period]
    return day().is_between(first, first + SPANS[period] - 1)
