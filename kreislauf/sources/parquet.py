"""Parquet files as lines of JSON, so that all raw data meets the same rules and quarantine."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pyarrow
from polars.exceptions import PanicException, PolarsError
from pyarrow import types
from pyarrow.parquet import ParquetFile

from models.table import RawLines

VALUE_BYTES = 24
"""Bytes of a value in JSON with its name, by which rows are divided into chunks."""


class ParquetError(ValueError):
    """The file cannot be read; the message says why and what to do, after the file's path."""


def opened(file: Any) -> ParquetFile:
    """A Parquet file. Raises ParquetError for columns of types that JSON cannot hold."""
    with named_errors():
        # By default a row group is read at once, and a file may be a single row group.
        parquet = ParquetFile(
            file, pre_buffer=False, buffer_size=1 << 20, page_checksum_verification=True
        )
    _check_types(parquet.schema_arrow)
    return parquet


@contextmanager
def named_errors() -> Iterator[None]:
    """What a broken file raises becomes ParquetError."""
    try:
        yield
    except (pyarrow.ArrowException, OSError, UnicodeError, PolarsError, PanicException) as error:
        raise ParquetError(f"is not a sound Parquet file ({error}). Deliver it again.") from error


def lines(
    path: str, parquet: ParquetFile, line: type[msgspec.Struct], chunk_bytes: int
) -> Iterator[RawLines]:
    """Each row of a Parquet file as a line of the shape `line`, about `chunk_bytes` at a time.

    The columns are the fields of `line`, in any order. Values are not validated: NaN and infinity
    become null, times and decimals text. Numbers of lines are those of rows, from 1. Raises
    ParquetError.
    """
    row = _row(line, parquet.schema_arrow.names).struct.json_encode()
    first = 1
    for group in range(parquet.num_row_groups):
        size = rows_per_chunk(parquet.metadata.row_group(group), chunk_bytes)
        for batch in parquet.iter_batches(size, row_groups=[group], use_threads=False):
            yield _raw(path, pl.DataFrame(batch).select(row).to_series().to_arrow(), first)
            first += len(batch)


def check_complete(parquet: ParquetFile, rows: int) -> None:
    """Raises ParquetError if fewer `rows` came than the file says it has."""
    if rows < parquet.metadata.num_rows:
        raise ParquetError(f"has {rows} of {parquet.metadata.num_rows} rows. Deliver it again.")


def _row(line: type[msgspec.Struct], columns: list[str]) -> pl.Expr:
    """The columns as one struct, which is a line.

    Raises ParquetError if they are not those of a line.
    """
    fields = msgspec.inspect.type_info(line).fields  # type: ignore[attr-defined]
    names = [field.encode_name for field in fields]
    required = {field.encode_name for field in fields if field.required}
    if len(columns) != len(set(columns)) or not required <= set(columns) <= set(names):
        raise ParquetError(
            f"has the columns {', '.join(columns)}. Expected are {', '.join(names)}. "
            "Rename or remove columns."
        )
    return pl.struct(name for name in names if name in columns)


def _check_types(schema: pyarrow.Schema) -> None:
    wrong = [f"{field.name} ({field.type})" for field in schema if not _fits_json(field.type)]
    if wrong:
        raise ParquetError(
            f"has columns whose type JSON cannot hold: {', '.join(wrong)}. Store text or numbers."
        )


def _fits_json(dtype: pyarrow.DataType) -> bool:
    """Whether Polars can write values of this type as JSON; of others, such as bytes, it panics."""
    if types.is_dictionary(dtype):
        return _fits_json(dtype.value_type)
    if types.is_nested(dtype):
        return all(_fits_json(dtype.field(i).type) for i in range(dtype.num_fields))
    scalar = types.is_primitive(dtype) or types.is_decimal128(dtype) or types.is_null(dtype)
    return scalar or is_text(dtype)


def is_text(dtype: pyarrow.DataType) -> bool:
    """Whether values of this type are text."""
    return types.is_string(dtype) or types.is_large_string(dtype) or types.is_string_view(dtype)


def rows_per_chunk(group: Any, chunk_bytes: int) -> int:
    """Estimate from the metadata of a row group; at least 1."""
    values = sum(group.column(i).num_values for i in range(group.num_columns))
    group_bytes = max(1, VALUE_BYTES * values, group.total_byte_size)
    return max(1, chunk_bytes * group.num_rows // group_bytes)


def _raw(path: str, rows: pyarrow.LargeStringArray, first: int) -> RawLines:
    _, offsets, data = rows.buffers()
    ends = np.frombuffer(offsets, np.int64)[: len(rows) + 1]
    numbers = np.arange(first, first + len(rows))
    return RawLines(path, data.to_pybytes(), ends[:-1], ends[1:], numbers)
