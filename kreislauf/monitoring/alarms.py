"""Alarms of the monitor, and what became of each, in the table `alarms`."""

import polars as pl

from kreislauf.lake import journal
from kreislauf.monitoring import tables
from kreislauf.monitoring.finding import Finding
from kreislauf.monitoring.policy import Action

COLUMNS = {"model", "version", "start", "end", "groups", "verdict", "reason", "flow_run"}
"""Columns of the table that a finding fills; `action` and `asks` say what followed."""


def record(finding: Finding, action: Action) -> None:
    """Record an alarm once; one that asks for a retraining is resolved by it."""
    row = finding.model_dump(include=COLUMNS)
    row |= {"action": action.sentence, "asks": action.asks_for_retraining}
    # A window is judged by several looks, each with newer tails beside it.
    key = f"{_key(row)}/{finding.verdict}/{action.asks_for_retraining}"
    journal.append_once(tables.ALARMS, key, pl.DataFrame([row]))


def resolve(model: str, until: int, action: str) -> None:
    """Record what became of each alarm of `model` that asked for a retraining and whose window
    ended until then (ms)."""
    waiting = tables.read(tables.ALARMS, pl.col("end") <= until, pl.col("asks"), model=model)
    for row in waiting.iter_rows(named=True):
        outcome = pl.DataFrame([row | {"action": action, "asks": False}], schema=waiting.schema)
        # The key is stored: what an earlier version resolved stays resolved once.
        journal.append_once(tables.ALARMS, f"{_key(row)}/settled", outcome)


def _key(row: dict) -> str:
    return "/".join(str(row[name]) for name in ("model", "version", "start", "end"))
