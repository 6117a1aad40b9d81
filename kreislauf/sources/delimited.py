"""CSV files as rows: delimiter and header are recognised, values stay text."""

import csv
import io
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow
from pyarrow import csv as arrow_csv

from kreislauf.sources.texts import as_text
from models.mapping import Mapping, MappingError
from models.table import RawRows

DELIMITERS = ",;\t|"
SAMPLE_LINES = 20
"""Lines at the beginning from which the delimiter is recognised."""
TAIL = 16
"""Bytes at the end of a file from which it is told whether its last quote is closed."""
BOM = b"\xef\xbb\xbf"


class DelimitedError(ValueError):
    """The file cannot be read; the message says why and what to do, after the file's path."""


def rows(path: str, stream: Any, mapping: Mapping, chunk_bytes: int) -> Iterator[RawRows]:
    """The rows of a CSV file by its columns, about `chunk_bytes` at a time.

    `stream` has the unpacked bytes. Numbers count records from 1, without the header. A record with
    more or fewer values than columns is broken, and so is one that is not UTF-8. Raises
    DelimitedError.
    """
    head = read_head(stream, chunk_bytes)
    if not head:
        return
    names, delimiter = _layout(head, mapping)
    invalid: list[arrow_csv.InvalidRow] = []

    def keep(record: arrow_csv.InvalidRow) -> str:
        invalid.append(record)
        return "skip"

    header = 0 if mapping.csv else 1
    joined = _Joined(head, stream)
    whole = pyarrow.PythonFile(io.BufferedReader(joined, chunk_bytes), "r")
    number = 1
    last_value = b""
    try:
        reader = arrow_csv.open_csv(
            whole,
            arrow_csv.ReadOptions(
                use_threads=False, block_size=chunk_bytes, column_names=names, skip_rows=header
            ),
            arrow_csv.ParseOptions(
                delimiter=delimiter,
                newlines_in_values=True,
                ignore_empty_lines=False,
                invalid_row_handler=keep,
            ),
            arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(names, pyarrow.binary()), check_utf8=False
            ),
        )
        for batch in reader:
            # Arrow numbers records from 1, the header among them, and reads ahead.
            skipped = {record.number - header: record for record in invalid}
            numbers = _numbers(number, batch.num_rows, skipped)
            if len(numbers):
                number = int(numbers[-1]) + 1
                last_value = batch.column(-1)[-1].as_py()
            broken = [_broken(n, record) for n, record in skipped.items() if n < number]
            invalid = [record for n, record in skipped.items() if n >= number]
            if joined.is_ascii:
                batch = _as_text(batch)
            yield _rows(path, pl.DataFrame(batch), numbers, broken, delimiter)
    except pyarrow.ArrowException as error:
        raise DelimitedError(f"is no sound CSV file ({error}). Mend it.") from error
    if b"\n" in last_value and not joined.tail.endswith(b'"'):
        raise _unclosed_quote(number - 1)
    if invalid:
        broken = [_broken(record.number - header, record) for record in invalid]
        nothing = pl.DataFrame(schema=dict.fromkeys(names, pl.Binary))
        yield _rows(path, nothing, np.array([], np.int64), broken, delimiter)


class _Broken(NamedTuple):
    """A record that is no row."""

    number: int
    text: bytes
    reason: str
    rule: str


def _broken(number: int, record: arrow_csv.InvalidRow) -> _Broken:
    if "\n" in record.text and record.text.count('"') % 2:
        raise _unclosed_quote(number)
    rule = f"Expected {record.expected_columns} columns, got {record.actual_columns}"
    return _Broken(number, record.text.encode(), "wrong-columns", rule)


def _as_text(batch: pyarrow.RecordBatch) -> pyarrow.RecordBatch:
    """Columns of bytes that are ASCII as text, without a look at each value."""
    return pyarrow.record_batch([c.view(pyarrow.string()) for c in batch], batch.schema.names)


def _unclosed_quote(number: int) -> DelimitedError:
    return DelimitedError(
        f"opens a quote in record {number} that nothing closes. Mend it, or the rest is lost."
    )


def _numbers(first: int, count: int, skipped: Collection[int]) -> np.ndarray:
    """Numbers of `count` records from number `first` on, without those `skipped`."""
    numbers = np.arange(first, first + count + len(skipped))
    if not skipped:
        return numbers
    return numbers[~np.isin(numbers, list(skipped))][:count]


class _Joined(io.RawIOBase):
    """Bytes that have been read already, and then the rest of their stream."""

    def __init__(self, head: bytes, rest: Any) -> None:
        self._head = memoryview(head)
        self._rest = rest
        self.tail = b""
        """The last bytes that were read, without the ends of lines behind them."""
        self.is_ascii = True
        """Whether all bytes that were read are."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._head:
            size = min(len(buffer), len(self._head))
            buffer[:size] = self._head[:size]
            self._head = self._head[size:]
        else:
            size = self._rest.readinto(buffer)
        block = bytes(buffer[:size])
        self.tail = (self.tail + block[-TAIL:]).rstrip(b"\r\n")[-TAIL:]
        self.is_ascii = self.is_ascii and block.isascii()
        return size


def read_head(stream: Any, size: int) -> bytes:
    """The first bytes, without a mark of UTF-8 before them."""
    buffer = bytearray(size)
    length = stream.readinto(buffer)
    head = bytes(buffer[:length])
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in head:
        raise DelimitedError("is UTF-16 or binary, not text in UTF-8. Convert it to UTF-8.")
    return head.removeprefix(BOM)


def refuse_repeated(names: list[str]) -> None:
    """Raises DelimitedError if columns have the same name."""
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise DelimitedError(f"has several columns called {', '.join(repeated)}. Rename them.")


def _layout(head: bytes, mapping: Mapping) -> tuple[list[str], str]:
    """Names of the columns, and the delimiter: the one that makes the columns of the mapping, or,
    without a header, as many as the mapping names. Raises DelimitedError."""
    lines = head.decode(errors="replace").splitlines()[:SAMPLE_LINES]
    faults = []
    for delimiter in sorted(DELIMITERS, key=lambda mark: -lines[0].count(mark)):
        first = next(csv.reader(lines, delimiter=delimiter), [])
        names = [name.strip() for name in first]
        if mapping.csv:
            names = mapping.csv.names
            if len(first) != len(names):
                faults.append(f"has {len(first)} columns; the mapping names {len(names)}.")
                continue
        refuse_repeated(names)
        try:
            mapping.check_columns(names)
        except MappingError as error:
            faults.append(str(error))
            continue
        return names, delimiter
    raise DelimitedError(faults[0])


def _rows(
    path: str, values: pl.DataFrame, numbers: np.ndarray, broken: list[_Broken], delimiter: str
) -> RawRows:
    """Records as rows: values as text, and those broken behind them."""
    texts = as_text(values)
    blank = 0
    # Most batches have neither, and then nothing is copied.
    if any(column.null_count() for column in texts):
        is_bad = texts.select(pl.any_horizontal(pl.all().is_null())).to_series()
        for row in values.insert_column(0, pl.Series(numbers)).filter(is_bad).rows():
            text = delimiter.encode().join(row[1:])
            broken.append(_Broken(row[0], text, "bad-utf8", "Invalid UTF-8"))
        texts = texts.filter(~is_bad)
        numbers = numbers[~is_bad.to_numpy()]
    if (texts.to_series(0) == "").any():
        is_blank = texts.select(pl.all_horizontal(pl.all() == "")).to_series()
        blank = int(is_blank.sum())
        texts = texts.filter(~is_blank)
        numbers = numbers[~is_blank.to_numpy()]
    return RawRows(
        path,
        texts,
        np.concatenate([numbers, np.array([b.number for b in broken], np.int64)]),
        [(texts.height + i, b.reason, b.rule) for i, b in enumerate(broken)],
        [b.text for b in broken],
        blank,
    )
