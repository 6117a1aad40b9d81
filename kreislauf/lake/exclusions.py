"""Stretches of time that no model learns from."""

import polars as pl

from kreislauf.lake import journal

DISTRUSTED = "distrusted"
"""Name of the table in the lake."""


def exclude(table: str, start: int, end: int, reason: str) -> None:
    """Leave the rows of `table` from `start` to `end` (ms since 1970 UTC, inclusive) out of what
    models learn from and are judged by. They stay in the table."""
    row = {"table": table, "start": start, "end": end, "reason": reason}
    journal.append_once(DISTRUSTED, f"{table}/{start}/{end}", pl.DataFrame([row]))


def intervals(table: str) -> list[tuple[int, int]]:
    """Start and end of each stretch of time that is left out, in their order."""
    found = journal.read(DISTRUSTED)
    return (
        []
        if found.is_empty()
        else sorted(found.filter(pl.col("table") == table).select("start", "end").rows())
    )
