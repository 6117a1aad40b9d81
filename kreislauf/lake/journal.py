"""Tables that are written a row at a time, each row exactly once: what was decided, and why.

Nobody asks for their old versions, so their logs are cut.
"""

from typing import Any

import polars as pl
from deltalake import CommitProperties, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError

from kreislauf.lake import delta, storage

CUT_LOG = {
    "delta.enableExpiredLogCleanup": "true",
    "delta.logRetentionDuration": "interval 30 days",
}
"""Configuration of a table of which only the newest version is read."""


def append_once(name: str, key: str, row: pl.DataFrame) -> None:
    """Append `row` to the table `name`, unless that was done with this `key` before.

    Makes the table if need be, and adds columns that it lacks. Raises LakeUnreachable if the
    storage does not answer.
    """
    address = storage.uri(name)
    for _ in range(storage.ATTEMPTS):
        stored = delta.find(name)
        if stored and stored.transaction_version(key) is not None:
            return
        once = CommitProperties(app_transactions=[Transaction(key, 1)], max_commit_retries=0)
        place: dict = {"table_or_uri": stored}
        if stored is None:
            place = {
                "table_or_uri": address,
                "configuration": CUT_LOG,
                "storage_options": storage.options(address),
            }
        try:
            with storage.answering(name):
                write_deltalake(
                    data=row.to_arrow(),
                    mode="append",
                    schema_mode="merge",
                    commit_properties=once,
                    **place,
                )
            return
        except CommitFailedError:
            continue  # Another writer was faster; what it wrote may be this.
    raise storage.too_busy(name)


def read(name: str, *predicates: pl.Expr, **values: Any) -> pl.DataFrame:
    """The rows of a table for which all predicates hold, and whose columns have these values; a
    frame without rows if there are none. Files without such rows are not read."""
    stored = delta.find(name)
    if stored is None:
        return pl.DataFrame()
    with storage.answering(name):
        return pl.scan_delta(stored).filter(*predicates, **values).collect()


def delete(name: str, predicate: str) -> int:
    """Delete the rows for which the SQL `predicate` holds; their number. Raises LakeUnreachable."""
    for _ in range(storage.ATTEMPTS):
        stored = delta.find(name)
        if stored is None:
            return 0
        try:
            with storage.answering(name):
                return stored.delete(predicate)["num_deleted_rows"]
        except CommitFailedError:
            continue  # Another writer was faster.
    raise storage.too_busy(name)


def cut_log(name: str) -> None:
    """Let the log of a table be cut that an earlier version of this library has made."""
    stored = delta.at(name, None)
    if CUT_LOG.items() <= stored.metadata().configuration.items():
        return
    with storage.answering(name):
        stored.alter.set_table_properties(CUT_LOG)
