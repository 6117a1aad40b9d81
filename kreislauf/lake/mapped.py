"""Rows of a source to those of a table, by a mapping."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import polars as pl

from kreislauf.lake import decode, records
from kreislauf.lake.decode import DecodedLines
from models import conversion, json_fields
from models.json_fields import Tree
from models.mapping import Mapping, identity
from models.records import RawPart, RawRecords
from models.table import RawLines, RawRows, Table

JSON = msgspec.json.Decoder()
SHOWN = 40
"""Most characters of a value in a rule."""


def decode_rows(
    table: Table,
    mapping: Mapping | None,
    batch: Sequence[RawPart],
    compiled: bool | None = None,
) -> DecodedLines:
    """Decode a batch of at least one, of which a row of the source is one of the table.

    By default the source has the table's own columns. The mapping fits the table. `compiled` tells
    whether the compiled loop is used for CSV; by default, where it is worth loading.
    """
    mapping = mapping or identity(table)
    if compiled is None:
        compiled = decode.is_worth_loading(batch)
    frames: list[pl.DataFrame] = []
    broken: list[tuple[int, str, str]] = []
    blank = 0
    left_out = 0
    offset = 0
    for raw in batch:
        remaining = np.arange(len(raw))
        if compiled and isinstance(raw, RawRecords):
            plain = records.read_plain_records(table, mapping, raw)
            if plain is not None:
                rows_of_loop, remaining = plain
                frames.append(rows_of_loop.with_columns(pl.col("line") + offset))
        if isinstance(raw, RawRecords) and not len(remaining):
            offset += len(raw)
            continue
        rows = _source_rows(mapping, raw, remaining)
        wanted, positions = _wanted(mapping, rows)
        line = pl.Series("line", positions + offset, pl.UInt32)
        columns, faults = convert(table, mapping, wanted)
        columns = columns.insert_column(0, line)
        faults = faults.insert_column(0, line).filter(pl.col("rule").is_not_null())
        # Most sources have no fault, and then nothing is copied.
        if faults.height:
            columns = columns.filter(~line.is_in(faults["line"].implode()))
        frames.append(columns)
        broken += faults.rows()
        broken += [(offset + position, code, rule) for position, code, rule in rows.broken]
        blank += rows.blank
        left_out += rows.frame.height - wanted.height
        offset += len(raw)
    rows_of_batch = pl.concat(frames)
    if not rows_of_batch["line"].is_sorted():
        rows_of_batch = rows_of_batch.sort("line", maintain_order=True)
    return DecodedLines(rows_of_batch, broken, blank, left_out)


def _source_rows(mapping: Mapping, raw: RawPart, positions: np.ndarray) -> "_SourceRows":
    """Rows of a source; of records those at some positions."""
    if isinstance(raw, RawLines):
        return read_lines(mapping, raw)
    if isinstance(raw, RawRows):
        return _SourceRows(raw.frame, np.arange(raw.frame.height), raw.broken, raw.blank)
    rows = raw.rows(positions)
    broken = [(int(rows.numbers[place]), code, rule) for place, code, rule in rows.broken]
    return _SourceRows(rows.frame, rows.numbers[: rows.frame.height], broken, rows.blank)


def with_single_rows(table: Table, raws: Sequence[RawLines], decoded: DecodedLines) -> DecodedLines:
    """What was decoded of a table's lines, and of the broken ones those that are a single row whose
    values convert.

    So a CSV or Parquet row comes back from the quarantine, where its values are text or floats. No
    such row makes a column of lists.
    """
    if table.items is None or any(dtype.is_nested() for dtype in table.dtypes.values()):
        return decoded
    firsts = np.cumsum([0, *map(len, raws)])
    field = f'"{table.items}"'.encode()
    places: list[int] = []
    texts: list[bytes] = []
    for place, _, _ in decoded.broken:
        owner = int(np.searchsorted(firsts, place, side="right")) - 1
        text = raws[owner].line(int(place - firsts[owner]))
        if field not in text:
            places.append(place)
            texts.append(text)
    if not texts:
        return decoded
    single = decode_rows(table, None, [RawLines.of("", texts)])
    positions = pl.Series(places, dtype=pl.UInt32).gather(single.rows["line"])
    converted = set(positions)
    rows = pl.concat([decoded.rows, single.rows.with_columns(positions.alias("line"))])
    return DecodedLines(
        rows.sort("line", maintain_order=True),
        [fault for fault in decoded.broken if fault[0] not in converted],
        decoded.blank,
    )


@dataclass(frozen=True)
class _SourceRows:
    """Rows of a source by its columns, and what could not be read."""

    frame: pl.DataFrame
    positions: np.ndarray
    broken: Sequence[tuple[int, str, str]]
    blank: int


def _wanted(mapping: Mapping, rows: _SourceRows) -> tuple[pl.DataFrame, np.ndarray]:
    """The rows that `only` does not leave out, and their positions."""
    frame = rows.frame
    positions = rows.positions
    for name, values in mapping.only.items():
        is_wanted = conversion.text(frame[name]).is_in(values).fill_null(False)
        frame = frame.filter(is_wanted)
        positions = positions[is_wanted.to_numpy()]
    return frame, positions


def convert(
    table: Table, mapping: Mapping, frame: pl.DataFrame
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The table's columns, and for each row the reason and rule of its first fault, or null."""
    columns: list[pl.Series] = []
    reason = pl.Series("reason", [None], pl.String).new_from_index(0, frame.height)
    rule = reason.alias("rule")
    for name in table.dtypes:
        column = mapping.columns[name]
        source = pl.Series([column.constant]).new_from_index(0, frame.height)
        if column.read:
            source = frame[column.read]
        change, shape, code = conversion.of(table, name, column)
        values = change(source)
        columns.append(values.alias(name))
        if not values.null_count():
            continue
        is_new = values.is_null() & rule.is_null()
        is_missing = source.is_null() | (source.cast(pl.String, strict=False) == "").fill_null(
            False
        )
        origin = column.read or name
        shown = conversion.text(source).str.slice(0, SHOWN)
        wrong = pl.select(
            pl.format(
                "Expected `{}` to be {}, got '{}'",
                pl.lit(origin),
                pl.lit(shape),
                shown.fill_null(""),
            )
        ).to_series()
        absent = pl.Series([f"`{origin}` has no value"])
        rule = rule.zip_with(~is_new, absent.zip_with(is_missing, wrong))
        codes = pl.Series(["missing-field"]).zip_with(is_missing, pl.Series([code]))
        reason = reason.zip_with(~is_new, codes)
    return pl.DataFrame(columns), pl.DataFrame([reason.alias("reason"), rule.alias("rule")])


def read_lines(mapping: Mapping, raw: RawLines) -> _SourceRows:
    """JSON lines by the source's columns. `a.b` is b in a nested object a, or a field so called."""
    tree = json_fields.tree_of(mapping)
    values: dict[str, list[Any]] = {name: [] for name in mapping.sources}
    positions: list[int] = []
    broken: list[tuple[int, str, str]] = []
    blank = 0
    for position in range(len(raw)):
        line = decode.payload(raw.line(position))
        if not line or line.isspace():
            blank += 1
            continue
        try:
            row = _fields(line, tree)
        except (ValueError, RecursionError) as error:
            broken.append((position, *decode.reason(error)))
            continue
        positions.append(position)
        for name, column in values.items():
            column.append(row.get(name))
    frame = pl.DataFrame([json_fields.column_of(*column) for column in values.items()])
    return _SourceRows(frame, np.array(positions, np.int64), broken, blank)


def _fields(line: bytes, tree: Tree) -> dict[str, Any]:
    """Values of a line's fields that are read, by their paths. Raises ValueError."""
    line.decode()
    record = JSON.decode(line)
    if not isinstance(record, dict):
        raise msgspec.ValidationError("Expected `object`")
    row: dict[str, Any] = {}
    fields = json_fields.collect(record, tree, row)
    if line.count(b'":') != fields:
        decode.refuse_repeated_fields(line)
    return row
