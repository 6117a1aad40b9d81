"""Parquet files as lines of JSON, so that all raw data meets the same rules and quarantine."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec
import numpy as np
import polars as pl
import pyarrow
from msgspec.inspect import ListType, StructType
from polars.exceptions import PanicException, PolarsError
from pyarrow import types
from pyarrow.parquet import ParquetFile

from models.table import RawLines

VALUE_BYTES = 24
"""Bytes of a value in JSON with its name, by which rows are divided into chunks."""


class ParquetError(ValueError):
    """The file cannot be read; the message says why and what to do, after the file's path."""


def lines(path: str, file: Any, line: type[msgspec.Struct], chunk_bytes: int) -> Iterator[RawLines]:
    """Each row of a Parquet file as a line of the shape `line`, about `chunk_bytes` at a time.

    The columns are the fields of `line`, in any order. If one of them is a list of structs, they
    may be the fields of these next to the other fields, with a row for each. Values are not
    validated: NaN and infinity become null, times and decimals text. Numbers of lines are those of
    rows, from 1. Raises ParquetError.
    """
    first = 1
    try:
        # By default a row group is read at once, and a file may be a single row group.
        parquet = ParquetFile(
            file, pre_buffer=False, buffer_size=1 << 20, page_checksum_verification=True
        )
        row = _Fields.of(line).row(parquet.schema_arrow.names).struct.json_encode()
        _check_types(parquet.schema_arrow)
        for group in range(parquet.num_row_groups):
            size = _rows_per_chunk(parquet.metadata.row_group(group), chunk_bytes)
            for batch in parquet.iter_batches(size, row_groups=[group], use_threads=False):
                yield _raw(path, pl.DataFrame(batch).select(row).to_series().to_arrow(), first)
                first += len(batch)
    except (pyarrow.ArrowException, OSError, UnicodeError, PolarsError, PanicException) as error:
        raise ParquetError(f"is not a sound Parquet file ({error}). Deliver it again.") from error
    if first <= parquet.metadata.num_rows:
        raise ParquetError(
            f"has {first - 1} of {parquet.metadata.num_rows} rows. Deliver it again."
        )


class _Fields(NamedTuple):
    """Names of a line's fields in JSON."""

    required: frozenset[str]
    scalars: tuple[str, ...]
    many: str = ""
    """Field that is a list of structs, if there is one."""
    items: tuple[str, ...] = ()
    """Fields of these structs."""

    @classmethod
    def of(cls, line: type[msgspec.Struct]) -> "_Fields":
        fields = msgspec.inspect.type_info(line).fields  # type: ignore[attr-defined]
        required = {f.encode_name for f in fields if f.required}
        for many in fields:
            if isinstance(many.type, ListType) and isinstance(many.type.item_type, StructType):
                item = many.type.item_type.fields
                required |= {f.encode_name for f in item if f.required}
                scalars = tuple(f.encode_name for f in fields if f is not many)
                items = tuple(f.encode_name for f in item)
                return cls(frozenset(required), scalars, many.encode_name, items)
        return cls(frozenset(required), tuple(f.encode_name for f in fields))

    def row(self, columns: list[str]) -> pl.Expr:
        """The columns as one struct, which is a line.

        Raises ParquetError if they are not those of a line.
        """
        nested = [*self.scalars]
        if self.many:
            nested.append(self.many)
        flat = [*self.scalars, *self.items]
        if self._match(nested, columns):
            return pl.struct(name for name in nested if name in columns)
        if self.many and self._match(flat, columns):
            scalars = [name for name in self.scalars if name in columns]
            item = pl.struct(name for name in self.items if name in columns)
            return pl.struct(*scalars, pl.concat_list(item).alias(self.many))
        expected = ", ".join(nested)
        if self.many:
            expected += f"; or, with a row for each of {self.many}: {', '.join(flat)}"
        raise ParquetError(
            f"has the columns {', '.join(columns)}. Expected are {expected}. "
            "Rename or remove columns."
        )

    def _match(self, allowed: list[str], columns: list[str]) -> bool:
        """Whether the columns are unique and allowed, and those required are among them."""
        names = set(columns)
        required = self.required.intersection(allowed)
        return len(columns) == len(names) and required <= names <= set(allowed)


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
    text = types.is_string(dtype) or types.is_large_string(dtype) or types.is_string_view(dtype)
    return text or types.is_primitive(dtype) or types.is_decimal128(dtype) or types.is_null(dtype)


def _rows_per_chunk(group: Any, chunk_bytes: int) -> int:
    """Estimate from the metadata of a row group; at least 1."""
    values = sum(group.column(i).num_values for i in range(group.num_columns))
    group_bytes = max(1, VALUE_BYTES * values, group.total_byte_size)
    return max(1, chunk_bytes * group.num_rows // group_bytes)


def _raw(path: str, rows: pyarrow.LargeStringArray, first: int) -> RawLines:
    _, offsets, data = rows.buffers()
    ends = np.frombuffer(offsets, np.int64)[: len(rows) + 1]
    numbers = np.arange(first, first + len(rows))
    return RawLines(path, data.to_pybytes(), ends[:-1], ends[1:], numbers)
