"""Tables that are written by a row at a time, each exactly once: what was decided, and why."""

import polars as pl
from deltalake import CommitProperties, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError

from kreislauf.lake import delta


def append_once(name: str, key: str, row: pl.DataFrame) -> None:
    """Append `row` to the table `name`, unless that was done with this `key` before; makes the
    table if need be.

    A column that the table lacks is added to it. Raises LakeUnreachable if the storage does not
    answer.
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


def read(name: str) -> pl.DataFrame:
    """All rows of a table, none if there is no such table."""
    found = delta.find(name)
    if found is None:
        return pl.DataFrame()
    with delta.answering(name):
        return pl.scan_delta(found).collect()
