"""The compiled loop reads records of CSV as the slow way does."""

import io

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from kreislauf.lake import fast_decode, mapped, records  # noqa: F401
from kreislauf.sources import delimited
from models.mapping import Mapping
from models.records import RawRecords
from models.session_recommender.schema import EVENTS
from models.session_recommender_text import SPEC as TEXT

TIME = 1_659_304_800_025
HEADER = "note;visit;item;at;what\n"
MAPPING = {
    "columns": {
        "session": "visit",
        "aid": "item",
        "ts": {"from": "at", "unit": "s"},
        "type": {"from": "what", "values": {"view": "clicks", "view it": "carts", "buy": "orders"}},
    },
    "ignored": ["note"],
}
SOUND = [
    f"a note;1;2;{TIME // 1000};view",
    f";1;007;{TIME // 1000};buy",
    f"x;9;{10**17};{TIME // 1000};view it",
]


def mapping_with(**changes: object) -> Mapping:
    return Mapping.model_validate(MAPPING | changes)


def raw_of(text: str, mapping: Mapping) -> RawRecords:
    (raw,) = delimited.parts("a.csv", io.BytesIO(text.encode()), mapping, 1 << 20)
    assert isinstance(raw, RawRecords)
    return raw


def assert_same(text: str, mapping: Mapping) -> int:
    """Both ways give the same; returns how many records the loop took."""
    raw = raw_of(text, mapping)
    slow = mapped.decode_rows(EVENTS, mapping, [raw], compiled=False)
    fast = mapped.decode_rows(EVENTS, mapping, [raw], compiled=True)
    assert fast.rows.equals(slow.rows)
    assert fast.rows.schema == slow.rows.schema
    assert sorted(fast.broken) == sorted(slow.broken)
    assert (fast.blank, fast.left_out) == (slow.blank, slow.left_out)
    plain = records.read_plain_records(EVENTS, mapping, raw)
    return 0 if plain is None else plain[0].height


def test_plain_records_take_the_fast_way():
    text = HEADER + "\n".join([*SOUND, "", f"ä;1;2;{TIME // 1000};view", "x;1;2;3;4;5"]) + "\r\n"
    assert assert_same(text, mapping_with()) == 2
    raw = raw_of(text, mapping_with())
    plain = records.read_plain_records(EVENTS, mapping_with(), raw)
    assert plain is not None
    rows, remaining = plain
    whole = TIME // 1000 * 1000
    assert rows.rows() == [(0, 1, 2, whole, "clicks"), (2, 9, 10**17, whole, "carts")]
    assert remaining.tolist() == [1, 3, 4, 5]


@pytest.mark.parametrize(
    ("changes", "taken"),
    [
        ({}, 2),
        (
            {
                "columns": MAPPING["columns"] | {"type": {"constant": "carts"}},
                "ignored": ["note", "what"],
            },
            2,
        ),
        ({"only": {"what": ["view"]}}, 0),
        ({"columns": MAPPING["columns"] | {"aid": "visit"}, "ignored": ["note", "item"]}, 0),
        (
            {"columns": MAPPING["columns"] | {"ts": {"from": "at", "format": "%Y", "zone": "UTC"}}},
            0,
        ),
        (
            {
                "columns": MAPPING["columns"]
                | {"type": {"from": "what", "values": {" view": "clicks"}}}
            },
            0,
        ),
        (
            {
                "columns": MAPPING["columns"]
                | {"type": {"from": "what", "values": {"v;w": "clicks"}}}
            },
            0,
        ),
    ],
)
def test_what_the_loop_cannot_read_is_left_to_the_slow_way(changes: dict, taken: int):
    assert assert_same(HEADER + "\n".join(SOUND) + "\n", mapping_with(**changes)) == taken


def test_a_tab_is_no_space():
    text = HEADER.replace(";", "\t") + f"x\t1\t\t2\t{TIME // 1000}\tview\n"
    assert assert_same(text, mapping_with()) == 0


def test_text_ids_are_read_the_slow_way():
    raw = raw_of(HEADER + SOUND[0] + "\n", mapping_with())
    assert records.read_plain_records(TEXT.table, mapping_with(), raw) is None


def test_a_record_is_kept_as_the_object_that_it_is_or_as_it_is_stored():
    raw = raw_of(HEADER + "\n".join([SOUND[0], "x;y"]) + "\n", mapping_with())
    assert raw.line(0) == (
        b'{"note":"a note","visit":"1","item":"2","at":"%d","what":"view"}' % (TIME // 1000)
    )
    assert raw.line(1) == b"x;y"
    assert raw.numbers.tolist() == [1, 2]


def test_records_are_numbered_across_pieces_and_quotes():
    lines = [f"n{i};{i};{i};{TIME};view" for i in range(100)]
    lines[70] = f'"n;70";70;70;{TIME};view'
    lines[20] = "broken"
    text = (HEADER + "\n".join(lines)).encode()
    pieces = list(delimited.parts("a.csv", io.BytesIO(text), mapping_with(), 256))
    assert len({type(piece) for piece in pieces}) == 2
    numbers = np.concatenate([piece.numbers for piece in pieces])
    assert sorted(numbers.tolist()) == list(range(1, 101))
    rows = mapped.decode_rows(EVENTS, mapping_with(), pieces, compiled=True)
    assert rows.rows["session"].to_list() == [i for i in range(100) if i != 20]
    assert rows.rows["line"].to_list() == [i for i in range(100) if i != 20]
    assert [place for place, _, _ in rows.broken] == [20]


BITS = st.sampled_from(
    [
        *("0", "7", "00", "-", "+", ".", ";", ";;", "\n", "\r\n", "\t", " ", "e", "x", "ä", "\x7f"),
        *("view", "it", "buy", "9223372036854775808"),
    ]
)


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """Sound records with a few pieces put in or taken out."""
    text = "\n".join(draw(st.lists(st.sampled_from(SOUND), min_size=1, max_size=4)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(text)))
        width = draw(st.integers(0, 3))
        text = text[:at] + draw(BITS) + text[at + width :]
    return text


@hypothesis_settings(max_examples=300, deadline=None)
@given(damaged())
def test_damaged_records_get_the_same_answer_both_ways(text: str):
    parts = list(
        delimited.parts(
            "a.csv", io.BytesIO((HEADER + text + "\n").encode()), mapping_with(), 1 << 20
        )
    )
    slow = mapped.decode_rows(EVENTS, mapping_with(), parts, compiled=False)
    fast = mapped.decode_rows(EVENTS, mapping_with(), parts, compiled=True)
    assert fast.rows.equals(slow.rows)
    assert sorted(fast.broken) == sorted(slow.broken)
    assert (fast.blank, fast.left_out) == (slow.blank, slow.left_out)
    assert fast.rows["line"].dtype == pl.UInt32
