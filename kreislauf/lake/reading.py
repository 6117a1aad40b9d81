"""Rows of a table at a version, and digests."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import polars as pl

from kreislauf.lake import delta, row_cache, storage
from kreislauf.lake.landing import as_rows
from kreislauf.lake.staging import DATE, date_of
from kreislauf.lake.storage import LakeError
from models.table import Table

DIGEST_ROWS = 100_000
"""Rows of a column that are hashed together."""


def version(table: Table) -> int:
    """Newest version of `table`. Raises LakeError if it does not exist."""
    return delta.at(table.name, None).version()


def scan(
    table: Table,
    version: int | None = None,
    start: int | None = None,
    end: int | None = None,
    without: Sequence[tuple[int, int]] = (),
) -> pl.LazyFrame:
    """Rows with `start` <= time < `end` (ms since 1970 UTC), in any order, at a version.

    The newest version is None. Groups with a row in one of the stretches `without` (both ends
    inclusive), as `exclusions.intervals` gives them, are left out whole, also when that row is
    after `end`; lasting groups lose only those rows. Columns that the table did not have at that
    version are null. Raises LakeError if there is no such version. Collect under `reading`, for
    what the storage and the values may raise.
    """
    stored = pl.scan_delta(delta.at(table.name, version))
    rows = as_rows(table, _between(stored, table, start, end))
    if table.lasting:
        times = [pl.col(table.time).is_between(first, last) for first, last in without]
        return rows.filter(~pl.any_horizontal(pl.lit(False), *times))
    excluded = [
        _between(stored, table, first, last + 1).select(table.group)
        for first, last in without
        if start is None or last >= start
    ]
    if not excluded:
        return rows
    return rows.join(pl.concat(excluded), on=table.group, how="anti")


def _between(
    stored: pl.LazyFrame, table: Table, start: int | None, end: int | None
) -> pl.LazyFrame:
    """Stored rows with `start` <= time < `end` (ms), of the files of their dates only."""
    if start is not None:
        stored = stored.filter(pl.col(table.time) >= start, pl.col(DATE) >= date_of(pl.lit(start)))
    if end is not None:
        stored = stored.filter(pl.col(table.time) < end, pl.col(DATE) <= date_of(pl.lit(end)))
    return stored


@contextmanager
def reading(table: Table) -> Iterator[None]:
    """What goes wrong while rows of `scan` are collected becomes LakeError or LakeUnreachable."""
    try:
        with storage.answering(table.name):
            yield
    except pl.exceptions.InvalidOperationError as error:
        first_line = str(error).splitlines()[0]
        raise LakeError(
            f"Table {table.name} holds values that this model type does not know: {first_line}."
        ) from error


def read(
    table: Table,
    version: int | None = None,
    start: int | None = None,
    end: int | None = None,
    without: Sequence[tuple[int, int]] = (),
) -> pl.DataFrame:
    """The rows of `scan`, sorted by group and time."""
    with reading(table):
        rows = scan(table, version, start, end, without).collect()
    return rows.sort(table.order)


def heights(table: Table) -> pl.DataFrame:
    """Number of rows of each date, oldest first: columns date, rows.

    The numbers are from the files' statistics; no row is read.
    """
    files = delta.files(delta.at(table.name, None))
    by_date = files.group_by(date=pl.col(f"partition.{DATE}"))
    return by_date.agg(rows=pl.col("num_records").sum()).sort("date")


def rebuild(
    table: Table,
    version: int,
    watermark: int,
    expected: str,
    without: Sequence[tuple[int, int]] = (),
) -> pl.DataFrame:
    """The rows up to `watermark` at a version, but `without`, whose digest is `expected`.

    They are bit for bit the same as when the digest was taken. They come from the cache of rows,
    or else from the lake, whose rows are then cached. Raises LakeError if the lake's are not the
    same, or are not there any more.
    """
    snapshot = row_cache.Snapshot(table, version, watermark, expected, without)
    cached = row_cache.find(snapshot)
    if cached is not None:
        return cached
    with reading(table):
        rows = scan(table, version, end=watermark + 1, without=without).collect()
    rows = rows.sort(table.order)
    actual = digest(rows)
    if actual != expected:
        raise LakeError(
            f"Version {version} of table {table.name} up to {watermark} has the digest "
            f"{actual[:12]} and not {expected[:12]}: these are not the rows that a model learnt "
            "from. Somebody has changed the lake's files or the model type's columns; restore "
            "them, or train a new version."
        )
    return row_cache.store(snapshot, rows)


def digest(rows: pl.DataFrame) -> str:
    """Hex SHA-256 of the rows in their order; columns that are null throughout do not count."""
    sha = hashlib.sha256()
    for column in sorted(name for name in rows.columns if rows[name].null_count() < rows.height):
        sha.update(column.encode() + b"\0")
        values = rows[column]
        if isinstance(values.dtype, pl.Enum):
            values = values.cast(pl.String)
        if values.dtype.is_nested():
            # CSV has no lists.
            values = values.to_frame().select(pl.struct(pl.all()).struct.json_encode()).to_series()
        for chunk in values.to_frame().iter_slices(DIGEST_ROWS):
            sha.update(chunk.write_csv(include_header=False, null_value="\0").encode())
    return sha.hexdigest()
