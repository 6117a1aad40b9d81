"""The monitor's tables in the lake, with today's names whatever wrote them."""

from typing import Any

import polars as pl

from kreislauf.lake import journal
from kreislauf.monitoring import renamed

WINDOWS = "windows"
"""Name of the table with each signal of each window."""
BASELINE = "baseline"
"""Name under which the quality of the version's trivial baseline stands there."""
FIRST_VERSION = "first_version"
"""Name under which that of the first version that was live stands there."""
SLICES = "slices"
"""Name of the table with the live quality in each slice of each window."""
ALARMS = "alarms"
"""Name of the table with each verdict that asks for attention, and what became of it."""


def read(name: str, *predicates: pl.Expr, **values: Any) -> pl.DataFrame:
    """Rows of one of these tables, as `journal.read` chooses them; none if there is no such table
    yet. What is chosen by must have had the same name always: model, version, start and end."""
    return renamed.table(journal.read(name, *predicates, **values))
