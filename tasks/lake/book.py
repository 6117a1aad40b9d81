"""Tables that are written by a row at a time, each exactly once: what was decided, and why."""

import polars as pl
from deltalake import CommitProperties, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError

from tasks.lake import delta

DISTRUSTED, ALARMS = "distrusted", "alarms"


def note(name: str, key: str, row: pl.DataFrame) -> None:
    """Append `row` to the table `name`, unless that was done with this `key` before; makes the table if need be.

    A column that the table lacks is added to it. Raises LakeUnreachable if the storage does not answer.
    """
    address = delta.uri(name)
    for _ in range(delta.ATTEMPTS):
        found = delta.find(name)
        if found and found.transaction_version(key) is not None:
            return
        once = CommitProperties(app_transactions=[Transaction(key, 1)], max_commit_retries=0)
        try:
            with delta.answering(name):
                write_deltalake(
                    found or address,
                    row.to_arrow(),
                    mode="append",
                    schema_mode="merge",
                    configuration=None if found else delta.KEEP_HISTORY,
                    storage_options=None if found else delta.options(address),
                    commit_properties=once,
                )
            return
        except CommitFailedError:
            continue  # Another writer was faster; what it wrote may be this.
    raise delta.too_busy(name)


def noted(name: str) -> pl.DataFrame:
    """All rows of a table, none if there is no such table."""
    found = delta.find(name)
    if found is None:
        return pl.DataFrame()
    with delta.answering(name):
        return pl.scan_delta(found).collect()


def distrust(table: str, start: int, end: int, reason: str) -> None:
    """Leave the rows of `table` from `start` to `end` (ms since 1970 UTC, inclusive) out of what models learn from and
    are judged by. They stay in the table."""
    row = {"table": table, "start": start, "end": end, "reason": reason}
    note(DISTRUSTED, f"{table}/{start}/{end}", pl.DataFrame([row]))


def distrusted(table: str) -> list[tuple[int, int]]:
    """Start and end of each stretch of time that is left out, in their order."""
    found = noted(DISTRUSTED)
    return [] if found.is_empty() else sorted(found.filter(pl.col("table") == table).select("start", "end").rows())


def alarm(row: dict, action: str, asks: bool) -> None:
    """Note an alarm, once: `row` has model, version, start and end (of the window, ms since 1970 UTC), and more;
    `action` says what followed. One that `asks` for a retraining is settled by it."""
    note(ALARMS, _key(row), pl.DataFrame([row | {"action": action, "asks": asks}]))


def settle_alarms(model: str, until: int, action: str) -> None:
    """Note what became of each alarm of `model` that asked for a retraining and whose window ended until then (ms)."""
    found = noted(ALARMS)
    if found.is_empty():
        return
    for row in found.filter(pl.col("model") == model, pl.col("end") <= until, "asks").iter_rows(named=True):
        note(ALARMS, f"{_key(row)}/settled", pl.DataFrame([row | {"action": action, "asks": False}]))


def _key(row: dict) -> str:
    return "/".join(str(row[name]) for name in ("model", "version", "start", "end"))
