"""Rows that a table has got since an earlier version, whatever their time."""

import polars as pl
from deltalake import DeltaTable

from kreislauf.lake import delta, duplicates
from kreislauf.lake.landing import as_rows
from kreislauf.lake.reading import reading
from kreislauf.lake.staging import DATE
from models.table import Table


def between(table: Table, since: int, version: int, end: int) -> pl.DataFrame:
    """Group and key of the rows before `end` (ms since 1970 UTC) that `version` has and version
    `since` has not.

    Only dates are read whose files are not the same in both. Raises LakeError if a version is not
    there.
    """
    older = delta.at(table.name, since)
    newer = delta.at(table.name, version)
    partition = f"partition.{DATE}"
    both = pl.concat([delta.files(stored).select("path", partition) for stored in (older, newer)])
    changed = both.filter(both["path"].is_unique())[partition].unique()
    columns = list(dict.fromkeys((table.group, *table.key)))

    def keys(stored: DeltaTable) -> pl.DataFrame:
        rows = as_rows(table, pl.scan_delta(stored).filter(pl.col(DATE).is_in(changed.implode())))
        return rows.filter(pl.col(table.time) < end).select(columns).collect()

    with reading(table):
        return duplicates.drop_stored(keys(newer), keys(older), table.key)
