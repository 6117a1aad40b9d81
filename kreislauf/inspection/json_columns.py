"""The fields of JSON lines as columns, whatever kind of value each line has in them."""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import polars as pl

from kreislauf.lake import decode, intake, mapped
from kreislauf.sources import SourceError
from kreislauf.sources.layout import Layout
from models import json_fields
from models.table import RawLines

JSON_LINES = "JSON lines"
DEPTH = 20
"""Most objects within each other of whose fields a column is made."""
SINGLE = "a single value"
OBJECT = "an object"
LIST = "a list"


def read(path: str, raws: Sequence[RawLines]) -> tuple[Layout, pl.DataFrame]:
    """Columns of JSON lines, those of nested objects as a.b, and a row of each object.

    Raises SourceError if no line has an object.
    """
    kinds: dict[str, set[str]] = {}
    rows: list[dict[str, Any]] = []
    first = b""
    for line in _lines(raws):
        first = first or line.strip()
        try:
            record = mapped.JSON.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
        if isinstance(record, dict):
            rows.append({})
            _add_fields(record, "", kinds, rows[-1], DEPTH)
    if first and not rows:
        raise SourceError(
            f"Not a single line of {path} is an object of JSON: it looks like {intake.kind(first)}."
        )
    layout = _layout(kinds)
    values = {name: [row.get(name) for row in rows] for name in layout.names}
    return layout, pl.DataFrame({n: json_fields.column_of(n, of_n) for n, of_n in values.items()})


def _lines(raws: Sequence[RawLines]) -> Iterator[bytes]:
    for raw in raws:
        for position in range(len(raw)):
            yield decode.payload(raw.line(position))


def _layout(kinds: dict[str, set[str]]) -> Layout:
    """The columns by the kinds of values of each field.

    A field that is an object in some lines only is nested, and those within it are columns, too.
    """
    single = [name for name, of_values in kinds.items() if of_values <= {SINGLE}]
    nested = {
        name: " or ".join(sorted(of_values))
        for name, of_values in kinds.items()
        if name not in single and of_values != {OBJECT}
    }
    for name, of_values in kinds.items():
        if of_values == {OBJECT} and not any(n.startswith(f"{name}.") for n in kinds):
            nested[name] = "an object without a field"
    return Layout(JSON_LINES, single, nested)


def _add_fields(
    record: dict[str, Any],
    prefix: str,
    kinds: dict[str, set[str]],
    row: dict[str, Any],
    depth: int,
) -> None:
    """Add the kinds of values of an object's fields to `kinds`, and single values to `row`."""
    for name, value in record.items():
        of_values = kinds.setdefault(prefix + name, set())
        if isinstance(value, dict) and depth:
            of_values.add(OBJECT)
            _add_fields(value, f"{prefix}{name}.", kinds, row, depth - 1)
        elif isinstance(value, dict | list):
            of_values.add(LIST)
        elif value is not None:
            of_values.add(SINGLE)
            row[prefix + name] = value
