"""Lines as tokens, which the compiled loop reads: the JSON of a struct, or records of CSV."""

import re
from dataclasses import dataclass
from functools import cache, cached_property
from typing import NamedTuple

import msgspec
import numpy as np
from msgspec.inspect import IntType, ListType, LiteralType, StructType

WORD, INTEGER, CHOICE, REST = range(4)
"""Types of a token."""
MAX_INTEGER = 10**18 - 1
"""Largest integer that the compiled loop reads: 18 digits surely fit into int64."""


class Token(NamedTuple):
    """A piece of a line: a fixed word, an integer from `low` to `high`, one of `words`, or all
    printable ASCII up to a delimiter, the byte `low`."""

    token_type: int
    words: tuple[bytes, ...] = ()
    low: int = 0
    high: int = 0
    column: str = ""


@dataclass(frozen=True)
class Template:
    """A line as its tokens."""

    head: list[Token]
    """Tokens of a record, or of a struct itself."""
    item: list[Token]
    """Tokens of the structs in its list, if it has one."""
    has_gaps: bool = True
    """Whether spaces may stand between what is not in quotes, as in JSON."""

    @cached_property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """The tokens for the compiled loop.

        These are tokens as int64 (n, 3), words as int64 (m, 2) spans, and the bytes that they
        span. The last array tells where among the bytes a space may stand: before a byte that is
        not inside quotes.
        """
        tokens: list[tuple[int, int, int]] = []
        spans: list[tuple[int, int]] = []
        text = b""
        for token in self.head + self.item:
            first = len(spans)
            for word in token.words:
                spans.append((len(text), len(text) + len(word)))
                text += word
            if token.token_type in (INTEGER, REST):
                tokens.append((token.token_type, token.low, token.high))
            else:
                tokens.append((token.token_type, first, len(spans)))
        quotes = np.cumsum(np.frombuffer(text, np.uint8) == ord('"'))
        gaps = np.roll(quotes % 2 == 0, 1) & self.has_gaps
        return (
            np.array(tokens, np.int64).reshape(-1, 3),
            np.array(spans, np.int64).reshape(-1, 2),
            np.frombuffer(text, np.uint8),
            gaps,
        )

    @cached_property
    def shortest_item(self) -> int:
        """Minimum bytes of an item."""
        return sum(min(map(len, token.words), default=1) for token in self.item)


class _TooRich(Exception):
    """The compiled loop does not know such a type."""


@cache
def template_of(line: type[msgspec.Struct]) -> Template | None:
    """The template of a struct; None if the compiled loop cannot read such lines."""
    try:
        info = msgspec.inspect.type_info(line)
        assert isinstance(info, StructType)
        last = info.fields[-1].type
        if not isinstance(last, ListType):
            return Template([*_object(info), _word("}")], [])
        bounded = last.max_length is not None or (last.min_length or 0) > 1
        if bounded or not isinstance(last.item_type, StructType):
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
    opening = "{"
    for position, field in enumerate(struct.fields):
        name = f'{opening}"{field.encode_name}":'
        opening = ","
        if isinstance(field.type, ListType) and position == len(struct.fields) - 1:
            return [*tokens, _word(f"{name}[")]
        tokens += [_word(name), _value(field.name, field.type)]
    return tokens


def _value(column: str, value_type: msgspec.inspect.Type) -> Token:
    if isinstance(value_type, IntType) and value_type.multiple_of is None:
        low, high = _bounds(value_type)
        return Token(INTEGER, (), low, high, column)
    if isinstance(value_type, LiteralType) and all(map(_is_plain_word, value_type.values)):
        words = tuple(f'"{word}"'.encode() for word in value_type.values)
        return Token(CHOICE, words, column=column)
    raise _TooRich


def _bounds(integer: IntType) -> tuple[int, int]:
    """Smallest and largest value of an integer, of those that the compiled loop reads."""
    low = max(0, integer.ge or 0)
    high = MAX_INTEGER
    if integer.gt is not None:
        low = max(low, integer.gt + 1)
    if integer.le is not None:
        high = min(high, integer.le)
    if integer.lt is not None:
        high = min(high, integer.lt - 1)
    return low, high


def _is_plain_word(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[\w-]+", value) is not None
