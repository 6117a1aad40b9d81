"""Tables that are written a row at a time, each row exactly once: what was decided, and why."""

import polars as pl
from deltalake import CommitProperties, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError

from kreislauf.lake import delta, storage


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
                "configuration": delta.KEEP_HISTORY,
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


def read(name: str) -> pl.DataFrame:
    """All rows of a table, none if there is no such table."""
    stored = delta.find(name)
    if stored is None:
        return pl.DataFrame()
    with storage.answering(name):
        return pl.scan_delta(stored).collect()
