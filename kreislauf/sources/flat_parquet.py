"""Parquet files with a row for each row of a table."""

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

import msgspec
import numpy as np
import polars as pl
import pyarrow
from pyarrow import types
from pyarrow.parquet import ParquetFile

from kreislauf.sources.parquet import ParquetError, is_text, rows_per_chunk
from kreislauf.sources.texts import as_text
from models.mapping import Mapping, MappingError
from models.table import RawRows

PANDAS_INDEX = re.compile(r"__index_level_\d+__")
"""Names under which pandas stores the index of a frame."""
WRITABLE_MS = (-62_135_596_800_000, 253_402_300_799_999)
"""The years 1 to 9999, in ms since 1970 UTC."""


def rows(path: str, parquet: ParquetFile, mapping: Mapping, chunk_bytes: int) -> Iterator[RawRows]:
    """The rows of a Parquet file by its columns, about `chunk_bytes` at a time.

    Columns that the mapping reads and the file lacks may stand in its path, as type=clicks/. An
    index of pandas is no column. Numbers are those of rows, from 1. Raises ParquetError.
    """
    stored = [name for name in parquet.schema_arrow.names if not PANDAS_INDEX.fullmatch(name)]
    of_path = {
        name: value
        for name, value in partitions(path).items()
        if name in mapping.sources and name not in stored
    }
    repeated = sorted({name for name in stored if stored.count(name) > 1})
    if repeated:
        raise ParquetError(f"has several columns called {', '.join(repeated)}. Rename them.")
    try:
        mapping.check_columns([*stored, *of_path])
    except MappingError as error:
        raise ParquetError(str(error)) from error
    wanted = [name for name in mapping.sources if name in stored]
    _check_single_values([parquet.schema_arrow.field(name) for name in wanted])
    added = [pl.lit(value).alias(name) for name, value in of_path.items()]
    zoned = {column.source for column in mapping.columns.values() if column.zone}
    for field in parquet.schema_arrow:
        if field.name in wanted and field.name not in zoned and lacks_zone(field.type):
            # The quarantine, too, has to say which moment is meant.
            added.append(pl.col(field.name).cast(pl.Datetime("us")).dt.replace_time_zone("UTC"))
    first = 1
    for group in range(parquet.num_row_groups):
        size = rows_per_chunk(parquet.metadata.row_group(group), chunk_bytes)
        batches = parquet.iter_batches(size, row_groups=[group], columns=wanted, use_threads=False)
        for batch in batches:
            yield _rows(path, batch, first, added)
            first += len(batch)


def _rows(path: str, batch: pyarrow.RecordBatch, first: int, added: list[pl.Expr]) -> RawRows:
    """Rows from number `first` on; those with text that is not UTF-8 are broken."""
    texts = [field.name for field in batch.schema if is_text(field.type)]
    values = pl.DataFrame(_with_bytes(batch, texts))
    _check_times(values)
    decoded = as_text(values)
    is_broken = pl.Series([False]).new_from_index(0, values.height)
    for name in texts:
        is_broken |= decoded[name].is_null() & values[name].is_not_null()
    numbers = np.arange(first, first + values.height)
    frame = decoded.filter(~is_broken).with_columns(added)
    broken = values.filter(is_broken)
    return RawRows(
        path,
        frame,
        np.concatenate([numbers[~is_broken.to_numpy()], numbers[is_broken.to_numpy()]]),
        [(frame.height + i, "bad-utf8", "Invalid UTF-8") for i in range(broken.height)],
        [_as_json(row) for row in broken.iter_rows(named=True)],
    )


def lacks_zone(dtype: pyarrow.DataType) -> bool:
    """Whether values are times or dates without a time zone; these are of UTC."""
    return types.is_date(dtype) or (types.is_timestamp(dtype) and dtype.tz is None)


def holds_single_values(dtype: pyarrow.DataType) -> bool:
    """Whether values are texts, numbers or times, of which a mapping makes something."""
    return not types.is_nested(dtype) and not types.is_duration(dtype)


def _check_single_values(fields: list[pyarrow.Field]) -> None:
    wrong = [
        f"{field.name} ({field.type})" for field in fields if not holds_single_values(field.type)
    ]
    if wrong:
        raise ParquetError(
            f"has columns that hold no single values: {', '.join(wrong)}. Store text or numbers."
        )


def _check_times(values: pl.DataFrame) -> None:
    """Raises ParquetError for times that cannot be written down, here or in the quarantine."""
    for column in values.select(pl.col(pl.Datetime)):
        years = column.dt.timestamp("ms")
        if not years.drop_nulls().is_between(*WRITABLE_MS).all():
            raise ParquetError(
                f"has times in {column.name} outside of the years 1 to 9999. Deliver it again."
            )


def _with_bytes(batch: pyarrow.RecordBatch, texts: list[str]) -> pyarrow.RecordBatch:
    """The batch with columns of text as bytes, because Polars takes it for granted that text is
    UTF-8."""
    columns = [
        batch[name].cast(pyarrow.large_binary()) if name in texts else batch[name]
        for name in batch.schema.names
    ]
    return pyarrow.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _as_json(row: dict[str, Any]) -> bytes:
    """A row as an object of JSON, bytes as they are."""
    pairs = []
    for name, value in row.items():
        text = b'"%b"' % value if isinstance(value, bytes) else msgspec.json.encode(value)
        pairs.append(b"%b:%b" % (msgspec.json.encode(name), text))
    return b"{%b}" % b",".join(pairs)


def partitions(path: str) -> dict[str, str]:
    """Columns in a path, as Hive writes them: key=value/."""
    folders = [folder.partition("=") for folder in path.split("/")[:-1]]
    return {name: unquote(value) for name, mark, value in folders if mark and name}
