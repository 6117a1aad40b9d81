"""Records of CSV as rows, read by Arrow: values stay text, and what is no row keeps its bytes."""

import io
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow
from pyarrow import csv as arrow_csv

from kreislauf.sources.texts import as_text
from models.table import RawRows

BOM = b"\xef\xbb\xbf"
TAIL = 16
"""Bytes at the end of a file from which it is told whether its last quote is closed."""


BAD_UTF8 = ("bad-utf8", "Invalid UTF-8")
"""Reason code and rule."""


class DelimitedError(ValueError):
    """The file cannot be read; the message says why and what to do, after the file's path."""


def rows_of(
    path: str,
    stream: "Joined",
    names: list[str],
    delimiter: str,
    chunk_bytes: int,
    header: int = 0,
    first: int = 1,
) -> Iterator[RawRows]:
    """Records as rows, of which the first has the number `first`, after `header` lines that are
    none."""
    invalid: list[arrow_csv.InvalidRow] = []

    def keep(record: arrow_csv.InvalidRow) -> str:
        invalid.append(record)
        return "skip"

    number = first
    last_value = b""
    try:
        reader = arrow_csv.open_csv(
            pyarrow.PythonFile(io.BufferedReader(stream, chunk_bytes), "r"),
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
            skipped = {record.number - header + first - 1: record for record in invalid}
            numbers = _numbers(number, batch.num_rows, skipped)
            if len(numbers):
                number = int(numbers[-1]) + 1
                last_value = batch.column(-1)[-1].as_py()
            broken = [_broken(n, record) for n, record in skipped.items() if n < number]
            invalid = [record for n, record in skipped.items() if n >= number]
            if stream.is_ascii:
                batch = _as_text(batch)
            yield _rows(path, pl.DataFrame(batch), numbers, broken, delimiter)
    except pyarrow.ArrowException as error:
        raise DelimitedError(f"is no sound CSV file ({error}). Mend it.") from error
    if not invalid and b"\n" in last_value and not stream.tail.endswith(b'"'):
        raise _unclosed_quote(number - 1)
    if invalid:
        broken = [_broken(record.number - header + first - 1, record) for record in invalid]
        nothing = pl.DataFrame(schema=dict.fromkeys(names, pl.Binary))
        yield _rows(path, nothing, np.array([], np.int64), broken, delimiter)


def without_bad_utf8(lines: bytes) -> tuple[bytes, dict[int, bytes]]:
    """The same lines, of which those that are not UTF-8 are blank, and these by their numbers."""
    broken: dict[int, bytes] = {}
    if not lines.isascii():
        for number, line in enumerate(lines.split(b"\n"), 1):
            try:
                line.decode()
            except UnicodeDecodeError:
                broken[number] = line
    if not broken:
        return lines, broken
    numbered = enumerate(lines.split(b"\n"), 1)
    return b"\n".join(b"" if number in broken else line for number, line in numbered), broken


def united(
    path: str, parts: Iterable[RawRows], names: list[str], bad_utf8: Mapping[int, bytes]
) -> RawRows:
    """All rows in one, and those broken behind them, with the lines that were made blank before."""
    frames = [pl.DataFrame(schema=dict.fromkeys(names, pl.String))]
    numbers = []
    broken: list[tuple[int, str, str]] = []
    texts: list[bytes] = []
    blank = 0
    for part in parts:
        frames.append(part.frame)
        numbers.append(part.numbers[: part.frame.height])
        broken += [(int(part.numbers[place]), code, rule) for place, code, rule in part.broken]
        texts += part.texts
        blank += part.blank
    broken += [(number, *BAD_UTF8) for number in bad_utf8]
    texts += bad_utf8.values()
    blank -= len(bad_utf8)
    frame = pl.concat(frames)
    numbers.append(np.array([number for number, *_ in broken], np.int64))
    faults = [(frame.height + i, code, rule) for i, (_, code, rule) in enumerate(broken)]
    return RawRows(path, frame, np.concatenate(numbers), faults, texts, blank)


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


class Joined(io.RawIOBase):
    """Bytes that have been read already, and then the rest of their stream."""

    def __init__(self, head: bytes, rest: Any) -> None:
        # Arrow takes such a mark away at the start of what it reads.
        self._head = memoryview(BOM + head if head.startswith(BOM) else head)
        self._rest = rest
        self.tail = b""
        """The last bytes that were read, without spaces and ends of lines behind them."""
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
        self.tail = (self.tail + block[-TAIL:]).rstrip(b"\r\n\t ")[-TAIL:]
        self.is_ascii = self.is_ascii and block.isascii()
        return size


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
            broken.append(_Broken(row[0], text, *BAD_UTF8))
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
