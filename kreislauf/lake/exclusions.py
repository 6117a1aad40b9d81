"""Stretches of time that no model learns from."""

import polars as pl

from kreislauf.lake import journal

DISTRUSTED = "distrusted"
"""Name of the table in the lake."""


def exclude(table: str, start: int, end: int, reason: str) -> None:
    """Leave the rows of `table` from `start` to `end` (ms since 1970 UTC, inclusive) out.

    Models neither learn from them nor are judged by them. They stay in the table.
    """
    row = {"table": table, "start": start, "end": end, "reason": reason}
    journal.append_once(DISTRUSTED, f"{table}/{start}/{end}", pl.DataFrame([row]))


def intervals(table: str) -> list[tuple[int, int]]:
    """Start and end of each stretch of time that is left out, in their order."""
    rows = journal.read(DISTRUSTED)
    if rows.is_empty():
        return []
    return sorted(rows.filter(pl.col("table") == table).select("start", "end").rows())
