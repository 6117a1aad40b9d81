"""JSON lines to columns.

A line that has all fields of its struct, in order, and in them only integers and known words, is
read by a compiled loop, straight into arrays. Any other line is for msgspec to judge: msgspec is
the rule, and the loop takes nothing that msgspec would not take, with the same values; a test holds
one against the other.
"""

import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, NamedTuple

import msgspec
import numpy as np
import polars as pl
from msgspec.inspect import IntType, ListType, LiteralType, StructType

from models.table import RawLines, Table

WORD, INTEGER, CHOICE = range(3)
MAX_INTEGER = 10**18 - 1
# Loading the compiled loop takes more than a second, so that few bytes are faster without it.
WORTH_LOADING = 16 << 20
# What msgspec says, and the reason code of a reject.
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


class Token(NamedTuple):
    """A piece of JSON: a fixed word, an integer from `low` to `high`, or one of `words`."""

    kind: int
    words: tuple[bytes, ...] = ()
    low: int = 0
    high: int = 0
    column: str = ""


@dataclass(frozen=True)
class Template:
    """A struct as the tokens of its JSON; `item` are those of the structs in its list, if it has
    one."""

    head: list[Token]
    item: list[Token]

    @cached_property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """For the compiled loop: tokens as int64 (n, 3), words as int64 (m, 2) spans, the bytes
        that they span, and where among these a space may stand: before a byte that is not inside
        quotes."""
        tokens: list[tuple[int, int, int]] = []
        spans: list[tuple[int, int]] = []
        text = b""
        for token in self.head + self.item:
            first = len(spans)
            for word in token.words:
                spans.append((len(text), len(text) + len(word)))
                text += word
            bounds = (token.low, token.high) if token.kind == INTEGER else (first, len(spans))
            tokens.append((token.kind, *bounds))
        quotes = np.cumsum(np.frombuffer(text, np.uint8) == ord('"'))
        gaps = np.roll(quotes % 2 == 0, 1)
        return (
            np.array(tokens, np.int64),
            np.array(spans, np.int64),
            np.frombuffer(text, np.uint8),
            gaps,
        )

    @cached_property
    def shortest_item(self) -> int:
        """Bytes that an item takes at least."""
        return sum(min(map(len, token.words), default=1) for token in self.item)


class _TooRich(Exception):
    """The compiled loop does not know such a type."""


@cache
def template(line: type[msgspec.Struct]) -> Template | None:
    """The template of a struct; None if the compiled loop cannot read such lines."""
    try:
        info = msgspec.inspect.type_info(line)
        assert isinstance(info, StructType)
        last = info.fields[-1].type
        if not isinstance(last, ListType):
            return Template([*_object(info), _word("}")], [])
        if (
            last.max_length is not None
            or (last.min_length or 0) > 1
            or not isinstance(last.item_type, StructType)
        ):
            raise _TooRich
        return Template(_object(info), [*_object(last.item_type), _word("}")])
    except _TooRich:
        return None


def _word(word: str) -> Token:
    return Token(WORD, (word.encode(),))


def _object(struct: StructType) -> list[Token]:
    """Tokens of an object up to its last value, or to the bracket that opens its list."""
    if struct.tag is not None or struct.array_like or not struct.forbid_unknown_fields:
        raise _TooRich
    tokens: list[Token] = []
    for i, field in enumerate(struct.fields):
        name = f'{"," if i else "{"}"{field.encode_name}":'
        if isinstance(field.type, ListType) and i == len(struct.fields) - 1:
            return [*tokens, _word(f"{name}[")]
        tokens += [_word(name), _value(field.name, field.type)]
    return tokens


def _value(column: str, kind: msgspec.inspect.Type) -> Token:
    if isinstance(kind, IntType) and kind.multiple_of is None:
        low = max(0, kind.ge or 0, 0 if kind.gt is None else kind.gt + 1)
        highs = [MAX_INTEGER, kind.le, None if kind.lt is None else kind.lt - 1]
        return Token(INTEGER, (), low, min(high for high in highs if high is not None), column)
    if isinstance(kind, LiteralType) and all(
        isinstance(v, str) and re.fullmatch(r"[\w-]+", v) for v in kind.values
    ):
        return Token(CHOICE, tuple(f'"{v}"'.encode() for v in kind.values), column=column)
    raise _TooRich


@dataclass(frozen=True)
class Decoded:
    """What became of the lines of one Raw."""

    rows: pl.DataFrame
    """Columns `line` (UInt32, position in the Raw) and those of the table, sorted by line; not
    validated."""
    broken: list[tuple[int, str, str]]
    """Position, reason code and rule of each line that does not decode."""
    blank: int


def decode(table: Table, raw: RawLines, total: int) -> Decoded:
    """Lines to rows; with these, `total` bytes are to be decoded, which tells if the compiled loop
    is worth loading."""
    shape = template(table.line)
    if shape is None or (total < WORTH_LOADING and "kreislauf.lake.fast_decode" not in sys.modules):
        return _by_rule(table, raw, np.arange(len(raw)))
    rows, left = _by_loop(table, raw, shape)
    if not len(left):
        return Decoded(rows, [], 0)
    rest = _by_rule(table, raw, left)
    if not rest.rows.is_empty():
        rows = pl.concat([rows, rest.rows]).sort("line", maintain_order=True)
    return Decoded(rows, rest.broken, rest.blank)


def _by_loop(table: Table, raw: RawLines, shape: Template) -> tuple[pl.DataFrame, np.ndarray]:
    """Rows of the lines that fit the template, and the positions of the others."""
    from kreislauf.lake.fast_decode import read_lines

    columns = [t for t in shape.head if t.column], [t for t in shape.item if t.column]
    own = np.empty((len(columns[0]), len(raw)), np.int64)
    room = len(raw.data) // shape.shortest_item if shape.item else 0
    items = np.empty((len(columns[1]), room), np.int64)
    counts = np.empty(len(raw), np.int64)
    data = np.frombuffer(raw.data, np.uint8)
    read: Callable[..., int] = read_lines
    total = read(data, raw.starts, raw.ends, *shape.arrays, len(shape.head), own, items, counts)
    position = np.repeat(np.arange(len(raw), dtype=np.uint32), np.maximum(counts, 0))
    values = {t.column: own[i][position] for i, t in enumerate(columns[0])}
    values |= {t.column: items[i, :total] for i, t in enumerate(columns[1])}
    series = [_series(t, values[t.column], table.dtypes[t.column]) for t in columns[0] + columns[1]]
    rows = pl.DataFrame([pl.Series("line", position), *series]).select("line", *table.dtypes)
    return rows, np.flatnonzero(counts < 0)


def _series(token: Token, values: np.ndarray, dtype: pl.DataType) -> pl.Series:
    found = pl.Series(token.column, values)
    if token.kind == CHOICE:
        words = pl.Enum([word[1:-1].decode() for word in token.words])
        found = found.cast(pl.UInt8, wrap_numerical=True).cat.to(words)
    return found if found.dtype == dtype else found.cast(dtype)


def _by_rule(table: Table, raw: RawLines, positions: np.ndarray) -> Decoded:
    """The lines at `positions`, decoded by msgspec."""
    decoder = msgspec.json.Decoder(table.line)
    decoded: list[Any] = []
    found: list[int] = []
    broken = []
    blank = 0
    for i in positions.tolist():
        line = raw.line(i).removeprefix(b"\xef\xbb\xbf")
        if not line or line.isspace():
            blank += 1
            continue
        try:
            line.decode()
            decoded.append(_once(table, line, decoder.decode(line)))
            found.append(i)
        except (ValueError, RecursionError) as error:
            broken.append((i, *_why(error)))
    rows = table.unfold(decoded)
    return Decoded(
        rows.with_columns(pl.Series("line", found, pl.UInt32).gather(rows["line"])), broken, blank
    )


def _once(table: Table, line: bytes, decoded: Any) -> Any:
    """`decoded`, unless its JSON names a field twice, of which msgspec would silently drop one."""
    fields = table.line.__struct_fields__
    items = getattr(decoded, table.items) if table.items else []
    expected = len(fields) + sum(len(item.__struct_fields__) for item in items)
    if table.line.__struct_defaults__ or line.count(b'":') != expected:
        json.loads(line, object_pairs_hook=_no_field_twice)
    return decoded


def _no_field_twice(pairs: list[tuple[str, Any]]) -> None:
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise _FieldTwice(f"Object contains field `{name}` more than once")


class _FieldTwice(ValueError):
    pass


def _why(error: Exception) -> tuple[str, str]:
    """Reason code, and the rule that a line broke in words."""
    if isinstance(error, UnicodeDecodeError):
        return "bad-utf8", f"Invalid UTF-8: {error.reason} (byte {error.start})"
    if isinstance(error, RecursionError):
        return "bad-json", "JSON is nested too deeply"
    if isinstance(error, _FieldTwice):
        return "duplicate-field", str(error)
    if not isinstance(error, msgspec.ValidationError):
        return "bad-json", str(error)
    return next((code for text, code in CODES.items() if text in str(error)), "wrong-type"), str(
        error
    )
