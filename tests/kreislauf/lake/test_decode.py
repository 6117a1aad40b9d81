import json
from dataclasses import replace
from typing import Annotated, Literal

import msgspec
import pandera.polars as pa
import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from kreislauf.lake import decode, fast_decode  # noqa: F401
from kreislauf.lake.template import template_of
from models.session_recommender.schema import EVENTS
from models.table import RawLines, Table


class Visit(msgspec.Struct, forbid_unknown_fields=True):
    page: Annotated[int, msgspec.Meta(gt=4, lt=100)]
    device: Literal["a", "ab", "b-1"]
    ms: Annotated[int, msgspec.Meta(ge=-5, le=2**63 - 1)]


class VisitRow(pa.DataFrameModel):
    page: pl.Int16
    device: pl.String
    ms: pl.Int64


VISITS = Table("visits", Visit, VisitRow, key=("page",), time="ms", group="page")
SESSION = (
    b'{"session":17,"events":[{"aid":1,"ts":1659304800025,"type":"clicks"},'
    b'{"aid":0,"ts":9,"type":"orders"}]}'
)
VISIT = b'{"page":42,"device":"ab","ms":7}'


def both(table, lines):
    """What msgspec says, and what the compiled loop says."""
    raws = [RawLines.of("x", lines)]
    by_rule = decode.decode_lines(table, raws, compiled=False)
    return by_rule, decode.decode_lines(table, raws, compiled=True)


def assert_equal(table, lines):
    by_rule, by_loop = both(table, lines)
    assert by_loop.rows.equals(by_rule.rows)
    assert by_loop.rows.schema == by_rule.rows.schema
    assert (by_loop.broken, by_loop.blank) == (by_rule.broken, by_rule.blank)


def taken(table, lines):
    """Positions of the lines that the compiled loop takes itself."""
    raw = RawLines.of("x", lines)
    _, remaining = decode.read_usual_lines(table, raw, template_of(table.line))
    return [i for i in range(len(lines)) if i not in remaining]


@pytest.mark.parametrize(
    "line",
    [
        SESSION,
        SESSION.replace(b":", b": ").replace(b",", b", "),
        SESSION.replace(b"{", b" \t{\r "),
        json.dumps(json.loads(SESSION)).encode() + b" \r",
        SESSION.replace(b"17", b"0"),
        SESSION.replace(b"17", b"9" * 18),
    ],
)
def test_usual_lines_take_the_fast_way(line):
    assert taken(EVENTS, [line]) == [0]
    assert_equal(EVENTS, [line, b"", line])


@pytest.mark.parametrize(
    "line",
    [
        SESSION.replace(b"17", b"9" * 19),
        SESSION.replace(b"17", b"017"),
        SESSION.replace(b"17", b"-1"),
        SESSION.replace(b"17", b"1.0"),
        SESSION.replace(b"17", b""),
        SESSION.replace(b"clicks", b"clickss"),
        SESSION.replace(b'"aid"', b'"a id"'),
        SESSION.replace(b'"aid"', b'"aid "'),
        SESSION.replace(b"1659304800025", b"165930 4800025"),
        SESSION + b"}",
        SESSION[:-1],
        SESSION.replace(b"},{", b"},,{"),
        SESSION.replace(b"}]", b"},]"),
        b'{"session":1,"events":[]}',
        b'{"events":[{"aid":1,"ts":2,"type":"carts"}],"session":5}',
        b"",
        b"{",
    ],
)
def test_other_lines_are_left_to_msgspec(line):
    assert taken(EVENTS, [line, SESSION]) == [1]
    assert_equal(EVENTS, [line, SESSION])


def test_no_line_reads_into_the_next_one():
    """Kafka messages lie next to each other without a line feed between them."""
    for cut in range(1, len(SESSION)):
        assert taken(EVENTS, [SESSION[:cut], SESSION[cut:], SESSION]) == [2]


@pytest.mark.parametrize(
    ("line", "fits"),
    [
        (VISIT, True),
        (VISIT.replace(b"42", b"5"), True),
        (VISIT.replace(b"42", b"4"), False),
        (VISIT.replace(b"42", b"100"), False),
        (VISIT.replace(b'"ab"', b'"a"'), True),
        (VISIT.replace(b'"ab"', b'"b-1"'), True),
        (VISIT.replace(b'"ab"', b'"abc"'), False),
        (VISIT.replace(b":7", b":-5"), False),
    ],
)
def test_bounds_and_words_of_a_flat_struct(line, fits):
    assert taken(VISITS, [line]) == ([0] if fits else [])
    assert_equal(VISITS, [line])


@pytest.mark.parametrize(
    "kind", [float, str, bool, int | None, list[int], Annotated[int, msgspec.Meta(multiple_of=2)]]
)
def test_structs_with_other_types_are_msgspec_s_alone(kind):
    struct = msgspec.defstruct("Rich", [("page", kind)], forbid_unknown_fields=True)
    assert template_of(struct) is None


def test_structs_that_allow_unknown_fields_are_msgspec_s_alone():
    assert template_of(msgspec.defstruct("Lax", [("page", int)])) is None


@pytest.mark.parametrize("kind", [int, int | None])
def test_a_number_beyond_its_column_breaks_its_line_and_no_more(kind):
    class Unbounded(msgspec.Struct, forbid_unknown_fields=True):
        page: Annotated[int, msgspec.Meta(ge=0)]
        device: Literal["a", "ab"]
        ms: kind

    table = replace(VISITS, line=Unbounded)
    sound = b'{"page":32767,"device":"a","ms":-9223372036854775808}'
    lines = [sound, sound.replace(b"767", b"768"), sound.replace(b"808", b"809")]
    by_rule, by_loop = both(table, [*lines, sound])
    assert by_loop.rows.rows() == [(i, 32767, "a", -(2**63)) for i in (0, 3)]
    assert by_rule.rows.equals(by_loop.rows)
    assert by_loop.broken == [
        (1, "out-of-range", "Integer value out of range -32768 to 32767 - at `$.page`"),
        (2, "out-of-range", f"Integer value out of range {-(2**63)} to {2**63 - 1} - at `$.ms`"),
    ]


def test_optional_fields_do_not_hide_a_field_that_is_there_twice():
    class Noted(msgspec.Struct, forbid_unknown_fields=True):
        page: int
        note: int = 0

    class NotedRow(pa.DataFrameModel):
        page: pl.Int64
        note: pl.Int64

    table = replace(VISITS, line=Noted, schema=NotedRow)
    by_rule, by_loop = both(table, [b'{"page":1,"page":2}', b'{"page":1}', b'{"page":1,"note":2}'])
    assert [(i, reason) for i, reason, _ in by_loop.broken] == [(0, "duplicate-field")]
    assert by_loop.rows.equals(by_rule.rows)


PIECES = st.sampled_from(
    [
        *rb'{ } [ ] , : " 0 7 00 - + . e5 "aid" "ts": "session":3, clicks carts'.split(),
        *rb"\u0061 \ null true".split(),
        *(b" ", b"\t", b"\r", b"\x0c", b"9" * 18, b"\xff", b"\xc3\xa9", b"\0"),
    ]
)


@st.composite
def damaged(draw, line):
    """A sound line with a few pieces put in, taken out or put in place of others."""
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(line)))
        stop = start + draw(st.integers(0, 9))
        line = line[:start] + draw(PIECES | st.just(b"")) + line[stop:]
    return line.replace(b"\n", b"")


@hypothesis_settings(max_examples=500, deadline=None, database=None)
@given(st.lists(damaged(SESSION) | st.binary(max_size=9), max_size=4))
@example([SESSION.replace(b"17", b"1" * 400)])
def test_damaged_sessions_get_the_same_answer_both_ways(lines):
    assert_equal(EVENTS, lines)


@hypothesis_settings(max_examples=300, deadline=None, database=None)
@given(st.lists(damaged(VISIT), max_size=4))
def test_damaged_flat_lines_get_the_same_answer_both_ways(lines):
    assert_equal(VISITS, lines)
