"""Alarms of the monitor, and what became of each, in the table alarms."""

import polars as pl

from kreislauf.lake import journal

ALARMS = "alarms"
"""Name of the table in the lake."""


def record(row: dict, action: str, asks: bool) -> None:
    """Note an alarm, once: `row` has model, version, start and end (of the window, ms since 1970
    UTC), and more; `action` says what followed. One that `asks` for a retraining is settled by
    it."""
    journal.append_once(ALARMS, _key(row), pl.DataFrame([row | {"action": action, "asks": asks}]))


def resolve(model: str, until: int, action: str) -> None:
    """Note what became of each alarm of `model` that asked for a retraining and whose window ended
    until then (ms)."""
    found = journal.read(ALARMS)
    if found.is_empty():
        return
    for row in found.filter(pl.col("model") == model, pl.col("end") <= until, "asks").iter_rows(
        named=True
    ):
        journal.append_once(
            ALARMS, f"{_key(row)}/settled", pl.DataFrame([row | {"action": action, "asks": False}])
        )


def _key(row: dict) -> str:
    return "/".join(str(row[name]) for name in ("model", "version", "start", "end"))
