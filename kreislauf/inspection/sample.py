"""The beginning of some files of a source, by its own columns."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from kreislauf import sources
from kreislauf.inspection import headers, json_columns
from kreislauf.inspection.json_columns import JSON_LINES
from kreislauf.sources import SourceError, SourceUnreachable, endings
from kreislauf.sources.layout import Layout
from models import conversion
from models.mapping import Mapping
from models.table import RawLines, RawRows, Table

ROWS = 100_000
"""Most rows that are looked at, in all files together."""
BYTES = 32 << 20
"""Bytes of a file after which no more of it is read, about."""
FILES = 5
"""Most files that are looked at, evenly over all of them."""


@dataclass(frozen=True)
class Sample:
    """Rows of a source, not validated, and where they are from."""

    source: str
    paths: list[str]
    """Of the files that were looked at."""
    files: int
    """Number of raw files in the source."""
    left_alone: list[str]
    is_whole: bool
    """Whether it is all that the source has."""
    layout: Layout
    """The columns of all of them."""
    others: list[str]
    """Paths of files whose columns are others than those of the first; none of their rows is
    here."""
    broken: dict[str, str]
    """What is wrong with files that cannot be read, by their paths."""
    frame: pl.DataFrame
    """The source's columns."""
    lines: int
    """Number of rows and of lines that are none."""


def take(source: str, table: Table, mapping: Mapping | None = None) -> Sample:
    """A sample of a file, a folder or an s3:// prefix. `mapping` names the columns of CSV without a
    header; else nothing is read by it.

    Raises SourceError if nothing can be read, with what the file looks like.
    """
    listing = sources.find(source)
    paths = _spread(listing.raw_files)
    rows = ROWS // len(paths)
    first: Layout | None = None
    others: list[str] = []
    broken: dict[str, str] = {}
    frames: list[pl.DataFrame] = []
    is_whole = len(paths) == len(listing.raw_files)
    lines = 0
    for path in paths:
        try:
            layout, of_file, size, is_end = _read_file(path, table, rows, mapping)
        except SourceUnreachable:
            raise
        except SourceError as error:
            broken[path] = str(error)
            continue
        is_whole &= is_end
        if first is None or not first.names:
            # A part without a line says nothing of the columns.
            first = layout
        if not layout.names:
            continue
        if not _same_columns(first, layout):
            others.append(path)
            continue
        first = _united(first, layout)
        frames += of_file
        lines += size
    if first is None:
        raise SourceError(" ".join(broken.values()))
    used = [path for path in paths if path not in others and path not in broken]
    return Sample(
        source,
        used,
        len(listing.raw_files),
        listing.left_alone,
        is_whole,
        first,
        others,
        broken,
        _joined([pl.DataFrame(schema=dict.fromkeys(first.names, pl.Null)), *frames]),
        lines,
    )


def _same_columns(first: Layout, second: Layout) -> bool:
    """Whether one mapping may read both; each JSON line has fields of its own."""
    same = set(first.names) == set(second.names) or first.form == JSON_LINES
    return first.form == second.form and same


def _spread(paths: list[str]) -> list[str]:
    """At most FILES of the paths, evenly over them, with the first and the last."""
    places = np.linspace(0, len(paths) - 1, min(FILES, len(paths))).round().astype(int)
    return [paths[place] for place in places]


def read(
    path: str, table: Table, mapping: Mapping | None, rows: int
) -> tuple[list[RawLines | RawRows], bool]:
    """At most `rows` rows or lines of a file, read as a load would, and whether that is all."""
    raws: list[RawLines | RawRows] = []
    left = rows
    size = 0
    for raw in sources.open_file(path, table, mapping).head():
        if left == 0 or size > BYTES:
            return raws, False
        raws.append(_cut(raw, left))
        if len(raws[-1]) < len(raw):
            return raws, False
        left -= len(raw)
        size += raw.size
    return raws, True


def _cut(raw: RawLines | RawRows, rows: int) -> RawLines | RawRows:
    if len(raw) <= rows:
        return raw
    if isinstance(raw, RawRows):
        frame = raw.frame.head(rows)
        return RawRows(raw.source, frame, raw.numbers[: frame.height])
    lines = [raw.line(position) for position in range(rows)]
    return RawLines.of(raw.source, lines, raw.numbers[:rows])


def _read_file(
    path: str, table: Table, rows: int, mapping: Mapping | None
) -> tuple[Layout, list[pl.DataFrame], int, bool]:
    """Columns, rows, number of lines, and whether they are all of one file."""
    layout = sources.open_file(path, table, mapping).layout()
    if layout is not None:
        raws, is_end = read(path, table, _with_all(layout), rows)
        frames = [raw.frame for raw in raws if isinstance(raw, RawRows)]
        if mapping is None and _lacks_header(path, layout, frames):
            layout = layout.without_header()
            raws, is_end = read(path, table, _with_all(layout), rows)
            frames = [raw.frame for raw in raws if isinstance(raw, RawRows)]
        frames = [_as_stored(frame, layout) for frame in frames]
        return layout, frames, sum(map(len, raws)), is_end
    raws, is_end = read(path, table, None, rows)
    lines = [raw for raw in raws if isinstance(raw, RawLines)]
    layout, frame = json_columns.read(path, lines)
    return layout, [frame], sum(map(len, raws)), is_end


def _lacks_header(path: str, layout: Layout, frames: list[pl.DataFrame]) -> bool:
    """Whether what was taken for the header of a CSV file is its first row."""
    if not layout.has_header or not endings.is_csv(path) or not layout.names:
        return False
    nothing = pl.DataFrame(schema=dict.fromkeys(layout.names, pl.String))
    return headers.is_event(layout.names, frames[0] if frames else nothing)


def _as_stored(frame: pl.DataFrame, layout: Layout) -> pl.DataFrame:
    """Times without a zone as such; a load takes them for UTC."""
    local = [name for name in layout.local_times if name in layout.names]
    return frame.with_columns(pl.col(name).dt.replace_time_zone(None) for name in local)


def _with_all(layout: Layout) -> Mapping:
    """A mapping that reads all columns, each under its own name."""
    content: dict[str, Any] = {
        "columns": {name: {"from": name} for name in layout.names if name},
        # A mapping cannot read a column without a name.
        "ignored": [*layout.nested, ""],
    }
    if not layout.has_header:
        content["csv"] = {"names": layout.names}
    return Mapping.model_validate(content)


def _united(first: Layout, second: Layout) -> Layout:
    """The columns of two files of JSON lines; those of other files are the same."""
    nested = first.nested | second.nested
    names = dict.fromkeys([*first.names, *second.names])
    return Layout(
        first.form,
        [name for name in names if name not in nested],
        nested,
        first.local_times | second.local_times,
        first.in_path & second.in_path,
        first.has_header,
    )


def _joined(frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Rows of several frames; columns of several types become text."""
    types: dict[str, set[pl.DataType]] = {}
    for frame in frames:
        for name, dtype in frame.schema.items():
            if dtype != pl.Null:
                types.setdefault(name, set()).add(dtype)
    mixed = {name for name, of_column in types.items() if len(of_column) > 1}
    as_text = [
        frame.with_columns(conversion.text(frame[name]) for name in mixed & set(frame.columns))
        for frame in frames
    ]
    return pl.concat(as_text, how="diagonal_relaxed")
