"""Parquet files of a table, which nobody sees before a commit names them."""

import io
import json
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl
from pydantic import BaseModel, ConfigDict

from kreislauf.lake import storage

ROW_GROUP = 50_000
"""Rows of a file that are read in one go.

Readers hold some of these in memory, however large the file is."""


class DataFile(BaseModel):
    """A Parquet file in a table's folder, which belongs to the table once a commit says so."""

    model_config = ConfigDict(frozen=True)

    path: str
    """Below the table's folder."""
    size: int
    partition: dict[str, str]
    rows: int
    low: dict[str, int]
    """Smallest values of integer columns, by which readers skip files."""
    high: dict[str, int]
    """Largest values of integer columns."""

    @property
    def statistics(self) -> str:
        """Delta's statistics of the file, as JSON."""
        fields = {
            "numRecords": self.rows,
            "minValues": self.low,
            "maxValues": self.high,
            "nullCount": {},
        }
        return json.dumps(fields)


def put(name: str, partition: Mapping[str, str], rows: pl.DataFrame) -> DataFile:
    """Write rows (of no partition column) as a file of a table, not yet visible."""
    buffer = io.BytesIO()
    integers = rows.select(pl.selectors.integer())
    writer_options = _parquet_options(rows.columns, integers.columns)
    rows.write_parquet(
        buffer, use_pyarrow=True, row_group_size=ROW_GROUP, pyarrow_options=writer_options
    )
    folders = [f"{column}={value}" for column, value in partition.items()]
    path = "/".join([*folders, f"part-{uuid.uuid4()}.parquet"])
    with storage.answering(name):
        fs, root = storage.filesystem(name)
        if "file" in fs.protocol:
            Path(root, *folders).mkdir(parents=True, exist_ok=True)
        fs.pipe_file(f"{root}/{path}", buffer.getvalue())
    return DataFile(
        path=path,
        size=buffer.tell(),
        partition=dict(partition),
        rows=rows.height,
        low=_without_nulls(integers.min()),
        high=_without_nulls(integers.max()),
    )


def _without_nulls(values: pl.DataFrame) -> dict[str, int]:
    """A frame of one row as a dictionary of the values that are not null."""
    named = values.row(0, named=True)
    return {column: value for column, value in named.items() if value is not None}


def _parquet_options(columns: Sequence[str], integers: Sequence[str]) -> dict:
    """Options of pyarrow's writer.

    Without Arrow's schema, an Enum is to all readers what it means: strings. Deltas of integers
    are smaller than a dictionary of them, and half the work.
    """
    return {
        "store_schema": False,
        "use_dictionary": [column for column in columns if column not in integers],
        "column_encoding": dict.fromkeys(integers, "DELTA_BINARY_PACKED"),
    }


def remove(name: str, files: Sequence[DataFile]) -> None:
    """Delete files that `put` wrote and no commit named."""
    with storage.answering(name):
        fs, root = storage.filesystem(name)
        for file in files:
            fs.rm_file(f"{root}/{file.path}")
