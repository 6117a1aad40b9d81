"""The monitor's tables in the lake, with today's names whatever wrote them."""

import polars as pl

from kreislauf.lake import journal
from kreislauf.monitoring import renamed

WINDOWS = "windows"
"""Name of the table with each signal of each window."""
SLICES = "slices"
"""Name of the table with the live quality in each slice of each window."""
ALARMS = "alarms"
"""Name of the table with each verdict that asks for attention, and what became of it."""


def read(name: str) -> pl.DataFrame:
    """All rows of one of these tables; none if there is no such table yet."""
    return renamed.table(journal.read(name))
