"""The columns of a raw file, before anybody has said which of them are used."""

import csv
import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

from pyarrow.parquet import ParquetFile

from kreislauf.sources import delimited
from kreislauf.sources.flat_parquet import (
    PANDAS_INDEX,
    holds_single_values,
    lacks_zone,
    partitions,
)

HEAD_BYTES = 1 << 20
"""Bytes at the beginning of a CSV file in which its first lines are."""
VALUE = re.compile(r"[+-]?\d+([.,]\d+)?|\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}.*")
"""A number or a date, which is no name of a column."""
SHOWN = 40
"""Most characters of a line in a message."""
MAX_ODD_SHARE = 0.5
"""Share of the records with as many values as the first, up to which a first line that begins with
# is a comment."""
DELIMITER_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}


@dataclass(frozen=True)
class Layout:
    """What a file has for columns."""

    form: str
    """CSV, Parquet or JSON lines, and what there is to say about it."""
    names: list[str]
    """Columns that hold single values."""
    nested: dict[str, str]
    """Columns that hold lists or objects, and their types in words."""
    local_times: frozenset[str] = frozenset()
    """Columns of times that are stored without a time zone."""
    in_path: frozenset[str] = frozenset()
    """Those of `names` that are in the path, as type=clicks/, and not in the file."""
    has_header: bool = True

    def without_header(self) -> "Layout":
        """The same of CSV whose first line is no header: columns are numbered."""
        numbered = [f"column_{number}" for number in range(1, len(self.names) + 1)]
        form = f"{self.form}, without a header"
        return replace(self, form=form, names=numbered, has_header=False)


def of_csv(stream: Any, given_names: list[str] | None = None) -> Layout:
    """The columns of a CSV file with these unpacked bytes; without a header they are numbered.
    `given_names` are those of a file that has none.

    Raises DelimitedError.
    """
    head = delimited.read_head(stream, HEAD_BYTES)
    lines = head.decode(errors="replace").splitlines()[: delimited.SAMPLE_LINES]
    if not lines:
        return Layout("CSV without a line", [], {})
    delimiter = max(delimited.DELIMITERS, key=lambda mark: _evenness(lines, mark))
    first = next(csv.reader(lines, delimiter=delimiter), [])
    names = [name.strip() for name in first]
    is_odd = _evenness(lines, delimiter)[0] <= MAX_ODD_SHARE
    if len(first) < 2 or (is_odd and lines[0].startswith("#")):
        _refuse_title(lines, first)
    form = f"CSV, its values separated by {DELIMITER_NAMES[delimiter]}"
    if given_names:
        return Layout(f"{form}, without a header", given_names, {}, has_header=False)
    if any(VALUE.fullmatch(name) for name in names):
        return Layout(form, names, {}).without_header()
    delimited.refuse_repeated(names)
    return Layout(form, names, {})


def _refuse_title(lines: list[str], first: list[str]) -> None:
    """Raises DelimitedError if most lines have more values than the first, a title or a comment."""
    for delimiter in delimited.DELIMITERS:
        sizes = Counter(len(record) for record in csv.reader(lines, delimiter=delimiter))
        width = max(sizes, key=lambda size: (sizes[size], size))
        if width > max(1, len(first)):
            raise delimited.DelimitedError(
                f"begins with {lines[0][:SHOWN]!r}, and most lines have {width} values: that is no "
                "header. Delete all lines before the header."
            )


def _evenness(lines: list[str], delimiter: str) -> tuple[float, int]:
    """How well a delimiter makes columns: the share of records with as many as the first, and how
    many; zeros for a single column."""
    counts = [len(record) for record in csv.reader(lines, delimiter=delimiter) if record]
    if not counts or counts[0] < 2:
        return 0.0, 0
    return counts.count(counts[0]) / len(counts), counts[0]


def of_parquet(path: str, parquet: ParquetFile) -> Layout:
    """The columns of a Parquet file, and those in its path. pandas' index is none."""
    fields = [field for field in parquet.schema_arrow if not PANDAS_INDEX.fullmatch(field.name)]
    nested = {
        field.name: str(field.type) for field in fields if not holds_single_values(field.type)
    }
    stored = [field.name for field in fields if field.name not in nested]
    in_path = [name for name in partitions(path) if name not in (*stored, *nested)]
    return Layout(
        "Parquet",
        [*stored, *in_path],
        nested,
        frozenset(field.name for field in fields if lacks_zone(field.type)),
        frozenset(in_path),
    )
