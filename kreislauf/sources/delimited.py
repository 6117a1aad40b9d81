"""CSV files in pieces: delimiter and header are recognised."""

import csv
import io
import re
from collections.abc import Iterator
from typing import Any

from kreislauf.sources.csv_rows import (
    BOM,
    DelimitedError,
    Joined,
    rows_of,
    united,
    without_bad_utf8,
)
from kreislauf.sources.storage import SourceError
from models.mapping import Mapping, MappingError
from models.records import RawRecords
from models.table import RawLines, RawRows

DELIMITERS = ",;\t|"
SAMPLE_LINES = 20
"""Lines at the beginning from which the delimiter is recognised."""

OTHER_KINDS = {
    re.compile(rb"PK\x03\x04"): "is a zip archive, or an Excel workbook. Unpack it, or save it as "
    "CSV.",
    re.compile(rb"\x1f\x8b"): "is a gzip file. Let its name end in .csv.gz.",
    re.compile(rb"\x28\xb5\x2f\xfd"): "is a zstd file. Let its name end in .csv.zst.",
    re.compile(rb"PAR1"): "is a Parquet file. Let its name end in .parquet.",
    re.compile(rb"(?i)\s*<(!doctype|html|\?xml)"): "is a web page or XML: perhaps an error message "
    "was stored instead of data. Deliver it again.",
    re.compile(rb"(?i)\"?sep=[^\r\n]{0,2}\r?\n"): "begins with `sep=`, a line for Excel alone. "
    "Delete this line: the delimiter is recognised without it.",
}
"""What else a file may be, by how it begins, and its cure."""


def parts(
    path: str, stream: Any, mapping: Mapping, chunk_bytes: int
) -> Iterator[RawRows | RawRecords]:
    """The records of a CSV file, about `chunk_bytes` at a time: as they are stored, and from the
    first quote on as rows by its columns.

    `stream` has the unpacked bytes. Numbers count records from 1, without the header. A record with
    more or fewer values than columns is broken, and so is one that is not UTF-8. Raises
    DelimitedError.
    """
    block = read_head(stream, chunk_bytes)
    if not block:
        return
    names, delimiter = _layout(block, mapping)
    number = 1
    header = 0 if mapping.csv else 1

    def parse(lines: bytes) -> RawRows:
        sound, broken = without_bad_utf8(lines)
        pieces = rows_of(path, Joined(sound, io.BytesIO()), names, delimiter, len(sound))
        try:
            return united(path, pieces, names, broken)
        except DelimitedError as error:
            raise SourceError(f"{path} {error}") from error

    while True:
        whole = block[: block.rfind(b"\n") + 1]
        skipped = whole.find(b"\n") + 1 if header else 0
        # A header that a carriage return ends, or whose quote goes on, is more than this line.
        line = whole[:skipped].removesuffix(b"\n").removesuffix(b"\r")
        is_header = b"\r" not in line and line.count(b'"') % 2 == 0
        if not whole or not is_header or not _is_plain(whole[skipped:]):
            break
        header = 0
        lines = RawLines.cut(path, whole[skipped:], number)
        number += len(lines)
        if len(lines):
            yield RawRecords(lines, names, delimiter, parse)
        more = _read(stream, chunk_bytes)
        block = block[len(whole) :] + more
        if not more:
            break
    if block:
        rest = Joined(block, stream)
        yield from rows_of(path, rest, names, delimiter, chunk_bytes, header, number)


def _is_plain(lines: bytes) -> bool:
    """Whether each line of CSV is a record, as it is without a quote."""
    if b'"' in lines:
        return False
    return b"\r" not in lines or lines.count(b"\r") == lines.count(b"\r\n")


def _read(stream: Any, size: int) -> bytes:
    """The next bytes of a stream, fewer only at its end."""
    buffer = bytearray(size)
    view = memoryview(buffer)
    length = 0
    while count := stream.readinto(view[length:]):
        length += count
    return bytes(view[:length])


def read_head(stream: Any, size: int) -> bytes:
    """The first bytes, without a mark of UTF-8 before them."""
    head = _read(stream, size).removeprefix(BOM)
    for starts, fault in OTHER_KINDS.items():
        if starts.match(head):
            raise DelimitedError(fault)
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in head:
        raise DelimitedError("is UTF-16 or binary, not text in UTF-8. Convert it to UTF-8.")
    return head


def refuse_repeated(names: list[str]) -> None:
    """Raises DelimitedError if columns have the same name, or several none."""
    if names.count("") > 1:
        raise DelimitedError(
            f"has {names.count('')} columns without a name. Name them in its first line, or export "
            "it without them."
        )
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
