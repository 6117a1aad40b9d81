"""JSON lines to columns.

A compiled loop reads the usual lines, straight into arrays. These have all fields of their struct,
in order, and in them only integers and words that the struct lists. Any other line is left to
msgspec. msgspec is the rule: the loop takes nothing that msgspec would not take, with the same
values. A test holds one against the other.
"""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import polars as pl

from kreislauf.lake.template import CHOICE, MAX_INTEGER, Template, Token, template_of
from models.records import RawPart
from models.table import RawLines, Table

WORTH_LOADING = 16 << 20
"""Minimum bytes of a batch for which the compiled loop is loaded, which takes over a second."""
CODES = {
    "missing required field": "missing-field",
    "unknown field": "unknown-field",
    "Invalid enum value": "unknown-value",
    " >= ": "out-of-range",
    " <= ": "out-of-range",
    " > ": "out-of-range",
    " < ": "out-of-range",
    "of length": "out-of-range",
    "out of range": "out-of-range",
}
"""Words in msgspec's message, and the reason code of a reject."""
MAX_RULE = 200
"""Most characters of a rule. What it quotes of a line, such as a field's name, may be of any
length."""
RULE_END = 50
"""Characters that a longer rule keeps of its end, where msgspec says which field is meant."""


@dataclass(frozen=True)
class DecodedLines:
    """Lines of a batch as columns."""

    rows: pl.DataFrame
    """Columns `line` (UInt32, position in the batch) and those of the table, sorted by line; not
    validated."""
    broken: list[tuple[int, str, str]]
    """Position, reason code and rule of each line that does not decode."""
    blank: int
    """Number of blank lines."""
    left_out: int = 0
    """Number of lines that a mapping leaves out."""


def decode_lines(
    table: Table, raws: Sequence[RawLines], compiled: bool | None = None
) -> DecodedLines:
    """Decode a batch of at least one RawLines.

    A line of a table with a list may be a single row, too: then it has the table's columns.
    `compiled` tells whether the compiled loop is used; by default, where it is worth loading.
    """
    if compiled is None:
        compiled = is_worth_loading(raws)
    frames: list[pl.DataFrame] = []
    broken: list[tuple[int, str, str]] = []
    blank = 0
    offset = 0
    for raw in raws:
        likely, *others = _shapes(table, raw)
        frames_of_raw: list[pl.DataFrame] = []
        remaining = np.arange(len(raw))
        template = template_of(likely.line)
        # The loop knows the bounds of fields, and no column's that is smaller than int64.
        is_narrow = any(largest < MAX_INTEGER for _, largest in likely.narrow.values())
        if compiled and template is not None and not is_narrow:
            rows, remaining = read_usual_lines(likely, raw, template)
            frames_of_raw.append(rows)
        if len(remaining) or not frames_of_raw:
            slow = read_by_rule(likely, raw, remaining)
            frames_of_raw.append(likely.unfold(slow.records, slow.positions))
            faults = slow.broken
            blank += slow.blank
            for shape in others if faults else []:
                rest = read_by_rule(shape, raw, np.array([*faults]))
                frames_of_raw.append(shape.unfold(rest.records, rest.positions))
                meant = [p for p in rest.broken if shape.items and _has_list(table, raw, p)]
                faults = {p: faults[p] for p in rest.broken} | {p: rest.broken[p] for p in meant}
            broken += [(offset + position, *reason) for position, reason in faults.items()]
        frames.append(_in_order(frames_of_raw).with_columns(pl.col("line") + offset))
        offset += len(raw)
    return DecodedLines(pl.concat(frames), broken, blank)


def _shapes(table: Table, raw: RawLines) -> list[Table]:
    """What a line may be, the first one's first: a record with a list, or a single row."""
    if table.flat is None:
        return [table]
    if len(raw) and not _has_list(table, raw, 0):
        return [table.flat, table]
    return [table, table.flat]


def _has_list(table: Table, raw: RawLines, position: int) -> bool:
    """Whether a line names the field that is a list."""
    return f'"{table.items}"'.encode() in raw.line(position)


def is_worth_loading(raws: Sequence[RawPart]) -> bool:
    """Whether a batch is worth the time that loading the compiled loop takes."""
    size = sum(raw.size for raw in raws)
    return size >= WORTH_LOADING or "kreislauf.lake.fast_decode" in sys.modules


def _in_order(frames: list[pl.DataFrame]) -> pl.DataFrame:
    """All rows, sorted by line; each frame is sorted."""
    filled = [frame for frame in frames if not frame.is_empty()] or frames[:1]
    if len(filled) == 1:
        return filled[0]
    return pl.concat(filled).sort("line", maintain_order=True)


def read_usual_lines(
    table: Table, raw: RawLines, template: Template
) -> tuple[pl.DataFrame, np.ndarray]:
    """Rows of the lines that fit the template, and the positions of the others."""
    from kreislauf.lake.fast_decode import read_lines

    head = [token for token in template.head if token.column]
    item = [token for token in template.item if token.column]
    max_items = 0
    if template.item:
        max_items = len(raw.data) // template.shortest_item
    head_values = np.empty((len(head), len(raw)), np.int64)
    item_values = np.empty((len(item), max_items), np.int64)
    counts = np.empty(len(raw), np.int64)
    data = np.frombuffer(raw.data, np.uint8)
    spans = (data, raw.starts, raw.ends)
    read: Callable[..., int] = read_lines
    total = read(*spans, *template.arrays, len(template.head), head_values, item_values, counts)
    position = np.repeat(np.arange(len(raw), dtype=np.uint32), np.maximum(counts, 0))
    columns = [pl.Series("line", position)]
    for token, values in zip(head, head_values, strict=True):
        columns.append(_series(token, values[position], table.dtypes[token.column]))
    for token, values in zip(item, item_values, strict=True):
        columns.append(_series(token, values[:total], table.dtypes[token.column]))
    rows = pl.DataFrame(columns).select("line", *table.dtypes)
    return rows, np.flatnonzero(counts < 0)


def _series(token: Token, values: np.ndarray, dtype: pl.DataType) -> pl.Series:
    column = pl.Series(token.column, values)
    if token.token_type == CHOICE:
        words = pl.Enum([word[1:-1].decode() for word in token.words])
        column = column.cast(pl.UInt8, wrap_numerical=True).cat.to(words)
    if column.dtype == dtype:
        return column
    return column.cast(dtype)


@dataclass
class _DecodedByRule:
    """What msgspec says of some lines of one RawLines."""

    records: list[Any]
    positions: list[int]
    """Position of each record's line."""
    broken: dict[int, tuple[str, str]]
    """Reason code and rule by position."""
    blank: int


def read_by_rule(table: Table, raw: RawLines, positions: np.ndarray) -> _DecodedByRule:
    """Decode the lines at `positions` with msgspec."""
    decoder = msgspec.json.Decoder(table.line)
    decoded = _DecodedByRule([], [], {}, 0)
    for position in positions.tolist():
        line = payload(raw.line(position))
        if not line or line.isspace():
            decoded.blank += 1
            continue
        try:
            line.decode()
            record = decoder.decode(line)
            _refuse_wide_numbers(table, record)
            if _may_repeat_fields(table, line, record):
                refuse_repeated_fields(line)
            decoded.records.append(record)
            decoded.positions.append(position)
        except (ValueError, RecursionError) as error:
            decoded.broken[position] = reason(error)
    return decoded


def payload(line: bytes) -> bytes:
    """A line without what may stand before its JSON: the mark of UTF-8, or, of a message for
    Confluent's schema registry, a zero byte and four of the schema's number."""
    if line.startswith(b"\0") and line[5:6] == b"{":
        return line[5:]
    return line.removeprefix(b"\xef\xbb\xbf")


def _refuse_wide_numbers(table: Table, record: Any) -> None:
    """Raises ValueError if a whole number is none that its column can hold."""
    if not table.narrow:
        return
    parts = [record]
    if table.items:
        parts += getattr(record, table.items)
    for part in parts:
        for name, (least, largest) in table.narrow.items():
            value = getattr(part, name, None)
            if isinstance(value, int) and not least <= value <= largest:
                raise msgspec.ValidationError(
                    f"Integer value out of range {least} to {largest} - at `$.{name}`"
                )


def _may_repeat_fields(table: Table, line: bytes, record: Any) -> bool:
    """Whether a line may name a field twice, of which msgspec would silently drop one."""
    fields = table.line.__struct_fields__
    items = []
    if table.items:
        items = getattr(record, table.items)
    expected = len(fields) + sum(len(item.__struct_fields__) for item in items)
    has_optional = any(part.__struct_defaults__ for part in (table.line, *items[:1]))
    return has_optional or line.count(b'":') != expected


def refuse_repeated_fields(line: bytes) -> None:
    """Raises ValueError if an object in the line has a field twice."""
    json.loads(line, object_pairs_hook=_refuse_repeated)


def _refuse_repeated(pairs: list[tuple[str, Any]]) -> None:
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise _RepeatedField(f"Object contains field `{name}` more than once")


class _RepeatedField(ValueError):
    pass


def reason(error: Exception) -> tuple[str, str]:
    """Reason code, and the rule that a line broke in at most `MAX_RULE` characters."""
    code, rule = _whole_reason(error)
    if len(rule) > MAX_RULE:
        gap = " [...] "
        rule = rule[: MAX_RULE - len(gap) - RULE_END] + gap + rule[-RULE_END:]
    return code, rule


def _whole_reason(error: Exception) -> tuple[str, str]:
    """Reason code, and the rule that a line broke in words, with all that it quotes."""
    if isinstance(error, UnicodeDecodeError):
        return "bad-utf8", f"Invalid UTF-8: {error.reason} (byte {error.start})"
    if isinstance(error, RecursionError):
        return "bad-json", "JSON is nested too deeply"
    if isinstance(error, _RepeatedField):
        return "duplicate-field", str(error)
    if not isinstance(error, msgspec.ValidationError):
        return "bad-json", str(error)
    codes = [code for words, code in CODES.items() if words in str(error)]
    return next(iter(codes), "wrong-type"), str(error)
