"""Records of CSV as they are stored, before anybody looks at their values."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from models.table import RawLines, RawRows


@dataclass(frozen=True)
class RawRecords:
    """Unvalidated lines of CSV, of which each is a record, because there is no quote in them."""

    lines: RawLines
    names: list[str]
    """Of the columns."""
    delimiter: str
    parse: Callable[[bytes], RawRows]
    """Reads lines as rows, whose numbers count from 1; slow and exact."""

    @property
    def source(self) -> str:
        """Path, or s3:// address."""
        return self.lines.source

    @property
    def numbers(self) -> np.ndarray:
        """int64: the number of each record in the file, from 1."""
        return self.lines.numbers

    @property
    def size(self) -> int:
        """Bytes in memory, about."""
        return self.lines.size

    def __len__(self) -> int:
        return len(self.lines)

    def rows(self, positions: np.ndarray) -> RawRows:
        """The records at some positions as rows, whose `numbers` are these positions."""
        if len(positions) == len(self):
            data = self.lines.data
        else:
            data = b"\n".join(self.lines.line(position) for position in positions) + b"\n"
        rows = self.parse(data)
        return replace(rows, numbers=positions[rows.numbers - 1])

    def as_rows(self) -> RawRows:
        """All records as rows, which are numbered as in the file."""
        rows = self.rows(np.arange(len(self)))
        return replace(rows, numbers=self.numbers[rows.numbers])

    def line(self, i: int) -> bytes:
        """The record at position `i` as an object of JSON, or as it is stored if it is no row."""
        (line,) = self.some_lines(np.array([i]))
        return line

    def some_lines(self, positions: np.ndarray) -> list[bytes]:
        """The records at different positions, none of them blank, as `line` has each."""
        rows = self.rows(positions)
        lines = {number: rows.line(i) for i, number in enumerate(rows.numbers.tolist())}
        return [lines[position] for position in positions.tolist()]


RawPart = RawLines | RawRows | RawRecords
"""A piece of what a source hands over."""
