"""The compiled loop reads records of CSV as the slow way does."""

import io

import numpy as np
import polars as pl
import pytest
from hypothesis import given, reject
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


ONE_COLUMN = {
    "session": "note",
    "aid": {"constant": "5"},
    "ts": {"constant": str(TIME), "unit": "ms"},
    "type": {"constant": "clicks"},
}


@pytest.mark.parametrize(
    ("columns", "ignored", "text", "rows", "taken"),
    [
        (ONE_COLUMN, [], "note\n1\n\n2\n", 2, 2),
        (ONE_COLUMN | {"session": {"constant": "1"}}, ["note"], "note\nx\n\ny\n", 2, 0),
        (
            MAPPING["columns"] | {"type": {"from": "what", "values": {"view": "sold"}}},
            ["note"],
            HEADER + SOUND[0] + "\n",
            0,
            0,
        ),
    ],
    ids=["one column", "constants", "no word of the table"],
)
def test_few_columns_and_words_that_the_table_lacks(columns, ignored, text, rows, taken):
    mapping = mapping_with(columns=columns, ignored=ignored)
    assert assert_same(text, mapping) == taken
    assert mapped.decode_rows(EVENTS, mapping, [raw_of(text, mapping)]).rows.height == rows


def test_an_ignored_last_column_may_end_with_a_carriage_return():
    columns = {**MAPPING["columns"], "session": "note", "type": {"constant": "clicks"}}
    mapping = mapping_with(columns=columns, ignored=["visit", "what"])
    assert assert_same(HEADER.replace("\n", "\r\n") + f"1;x;2;{TIME // 1000};y\r\n", mapping) == 1


@pytest.mark.parametrize("ends", ["\r", "\n"])
def test_a_carriage_return_alone_ends_a_line(ends: str):
    text = (HEADER + "\n".join(SOUND)).replace("\n", "\r", 1).replace("\n", ends) + "\n"
    parts = list(delimited.parts("a.csv", io.BytesIO(text.encode()), mapping_with(), 1 << 20))
    assert mapped.decode_rows(EVENTS, mapping_with(), parts).rows["session"].to_list() == [1, 1, 9]


def test_a_mark_of_utf8_is_taken_from_the_start_of_the_file_alone():
    mapping = mapping_with(csv={"names": HEADER.strip().split(";")})
    lines = [f"{i};{i};1;{TIME // 1000};view" for i in range(3)]
    text = "\ufeff" + "\n\ufeff".join(lines).replace(";1;1;", ";\ufeff1;1;") + "\n"
    for size in (len(lines[0].encode()) + 4, 1 << 20):
        parts = list(delimited.parts("a.csv", io.BytesIO(text.encode()), mapping, size))
        for compiled in (False, True):
            decoded = mapped.decode_rows(EVENTS, mapping, parts, compiled)
            assert decoded.rows["session"].to_list() == [0, 2]
            assert [fault[:2] for fault in decoded.broken] == [(1, "wrong-type")]
    (raw,) = parts
    assert b"\xef\xbb\xbf1" in raw.line(1)


def test_a_broken_record_that_is_not_utf8_is_kept_and_ends_nothing():
    mapping = mapping_with()
    text = (HEADER + SOUND[0] + "\n1;2;").encode() + b"\xe4\n" + SOUND[2].encode() + b"\n"
    (raw,) = delimited.parts("a.csv", io.BytesIO(text), mapping, 1 << 20)
    for compiled in (False, True):
        decoded = mapped.decode_rows(EVENTS, mapping, [raw], compiled)
        assert decoded.rows["session"].to_list() == [1, 9]
        assert decoded.broken == [(1, "bad-utf8", "Invalid UTF-8")]
    assert raw.line(1) == b"1;2;\xe4"
    assert raw.as_rows().numbers.tolist() == [1, 3, 2]


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
        *(
            "0",
            "7",
            "00",
            "-",
            "+",
            ".",
            ";",
            ";;",
            "\n",
            "\r\n",
            "\r",
            '"',
            "\t",
            " ",
            "e",
            "x",
            "ä",
            "\x7f",
        ),
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
@given(damaged(), st.sampled_from([80, 1 << 20]))
def test_damaged_records_get_the_same_answer_both_ways(text: str, size: int):
    stream = io.BytesIO((HEADER + text + "\n").encode())
    try:
        parts = list(delimited.parts("a.csv", stream, mapping_with(), size))
    except delimited.DelimitedError:
        # A quote that nothing closes, or a record that is longer than a piece.
        reject()
    slow = mapped.decode_rows(EVENTS, mapping_with(), parts, compiled=False)
    fast = mapped.decode_rows(EVENTS, mapping_with(), parts, compiled=True)
    assert fast.rows.equals(slow.rows)
    assert sorted(fast.broken) == sorted(slow.broken)
    assert (fast.blank, fast.left_out) == (slow.blank, slow.left_out)
    assert fast.rows["line"].dtype == pl.UInt32
