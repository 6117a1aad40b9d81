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

from kreislauf.sources.parquet import ParquetError, rows_per_chunk
from kreislauf.sources.texts import as_text
from models.mapping import Mapping, MappingError
from models.table import RawRows

PANDAS_INDEX = re.compile(r"__index_level_\d+__")
"""Names under which pandas stores the index of a frame."""


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
    constants = [pl.lit(value).alias(name) for name, value in of_path.items()]
    first = 1
    for group in range(parquet.num_row_groups):
        size = rows_per_chunk(parquet.metadata.row_group(group), chunk_bytes)
        batches = parquet.iter_batches(size, row_groups=[group], columns=wanted, use_threads=False)
        for batch in batches:
            yield _rows(path, batch, first, constants)
            first += len(batch)


def _rows(path: str, batch: pyarrow.RecordBatch, first: int, constants: list[pl.Expr]) -> RawRows:
    """Rows from number `first` on; those with text that is not UTF-8 are broken."""
    texts = [field.name for field in batch.schema if _is_text(field.type)]
    values = pl.DataFrame(_with_bytes(batch, texts))
    decoded = as_text(values)
    is_broken = pl.Series([False]).new_from_index(0, values.height)
    for name in texts:
        is_broken |= decoded[name].is_null() & values[name].is_not_null()
    numbers = np.arange(first, first + values.height)
    frame = decoded.filter(~is_broken).with_columns(constants)
    broken = values.filter(is_broken)
    return RawRows(
        path,
        frame,
        np.concatenate([numbers[~is_broken.to_numpy()], numbers[is_broken.to_numpy()]]),
        [(frame.height + i, "bad-utf8", "Invalid UTF-8") for i in range(broken.height)],
        [_as_json(row) for row in broken.iter_rows(named=True)],
    )


def _is_text(dtype: pyarrow.DataType) -> bool:
    return types.is_string(dtype) or types.is_large_string(dtype) or types.is_string_view(dtype)


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
