import io
import json
import random
import uuid
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Literal

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from kreislauf.sources import parquet
from kreislauf.sources.parquet import ParquetError
from models.session_recommender.schema import EVENTS, Natural
from models.table import RawLines

FLAT = {
    "session": [1, 2, 2],
    "aid": [7, 8, 9],
    "ts": [5, 6, 7],
    "type": ["clicks", "carts", "orders"],
}
ITEM = pa.struct({"aid": pa.int64(), "ts": pa.int64(), "type": pa.string()})


def stored(table: pa.Table, **options) -> io.BytesIO:
    file = io.BytesIO()
    pq.write_table(table, file, **options)
    file.seek(0)
    return file


class Row(msgspec.Struct):
    session: Natural
    aid: Natural
    ts: Natural
    type: Literal["clicks", "carts", "orders"]


def raws(
    file: io.BytesIO, line: type[msgspec.Struct] = Row, chunk_bytes: int = 1 << 20
) -> list[RawLines]:
    """All chunks; the numbers of their lines must be 1, 2, 3 ..."""
    with parquet.named_errors():
        opened = parquet.opened(file)
        raws = list(parquet.lines("a.parquet", opened, line, chunk_bytes))
    parquet.check_complete(opened, sum(map(len, raws)))
    assert [n for raw in raws for n in raw.numbers.tolist()] == list(
        range(1, sum(map(len, raws)) + 1)
    )
    return raws


def lines(
    file: io.BytesIO, line: type[msgspec.Struct] = Row, chunk_bytes: int = 1 << 20
) -> list[bytes]:
    return [raw.line(i) for raw in raws(file, line, chunk_bytes) for i in range(len(raw))]


# Layouts


@pytest.mark.parametrize("chunk_bytes", [1, 100, 1 << 20])
@pytest.mark.parametrize("group", [1, 2, 1000])
def test_a_row_is_a_line_whatever_the_order_of_columns(group, chunk_bytes):
    expected = [
        b'{"session":1,"aid":7,"ts":5,"type":"clicks"}',
        b'{"session":2,"aid":8,"ts":6,"type":"carts"}',
        b'{"session":2,"aid":9,"ts":7,"type":"orders"}',
    ]
    for columns in (FLAT, dict(reversed(FLAT.items()))):
        assert (
            lines(stored(pa.table(columns), row_group_size=group), chunk_bytes=chunk_bytes)
            == expected
        )


@pytest.mark.parametrize("chunk_bytes", [1, 100, 1 << 20])
def test_a_nested_row_is_a_line(chunk_bytes):
    events = pa.array(
        [[{"aid": 7, "ts": 5, "type": "clicks"}] * 2, [], None, [None]], pa.list_(ITEM)
    )
    event = b'{"aid":7,"ts":5,"type":"clicks"}'
    expected = [
        b'{"session":1,"events":[%b,%b]}' % (event, event),
        b'{"session":2,"events":[]}',
        b'{"session":3,"events":null}',
        b'{"session":4,"events":[null]}',
    ]
    sessions = pa.array([1, 2, 3, 4])
    for table in (
        pa.table({"session": sessions, "events": events}),
        pa.table({"events": events, "session": sessions}),
    ):
        assert lines(stored(table), EVENTS.line, chunk_bytes) == expected


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2**63 - 1),
            st.lists(
                st.fixed_dictionaries(
                    {
                        "aid": st.integers(0, 2**63 - 1),
                        "ts": st.integers(),
                        "type": st.text(st.characters(codec="utf-8")),
                    }
                    | {"ts": st.integers(0, 2**63 - 1)}
                ),
                max_size=4,
            ),
        ),
        min_size=1,
        max_size=20,
    ),
    st.integers(1, 500),
)
@hypothesis_settings(max_examples=100, deadline=None)
def test_values_stay_what_they_are(sessions, chunk_bytes):
    table = pa.table(
        {
            "session": [s for s, _ in sessions],
            "events": pa.array([e for _, e in sessions], pa.list_(ITEM)),
        }
    )
    file = stored(table, row_group_size=7)
    decoded = [json.loads(line) for line in lines(file, EVENTS.line, chunk_bytes)]
    assert decoded == [{"session": s, "events": e} for s, e in sessions]
    flat = [{"session": s, **event} for s, events in sessions for event in events]
    if flat:
        decoded = [
            json.loads(line)
            for line in lines(stored(pa.Table.from_pylist(flat)), chunk_bytes=chunk_bytes)
        ]
        assert decoded == flat


class Visit(msgspec.Struct, rename="camel"):
    page_id: int
    stay_ms: float = 0.0


def test_a_line_without_a_list_has_one_layout_and_may_lack_what_has_a_default():
    assert lines(stored(pa.table({"stayMs": [1.5], "pageId": [2]})), Visit) == [
        b'{"pageId":2,"stayMs":1.5}'
    ]
    assert lines(stored(pa.table({"pageId": [2]})), Visit) == [b'{"pageId":2}']
    with pytest.raises(
        ParquetError, match=r"has the columns page_id\. Expected are pageId, stayMs\. Rename"
    ):
        lines(stored(pa.table({"page_id": [2]})), Visit)


@pytest.mark.parametrize(
    "names",
    [
        ["session", "events", "aid"],
        ["session"],
        ["Session", "events"],
        ["session", "session", "events"],
    ],
)
def test_other_columns_are_named_with_those_expected(names):
    table = pa.Table.from_arrays([pa.array([1])] * len(names), names)
    expected = r"Expected are session, events\."
    with pytest.raises(
        ParquetError, match=rf"has the columns {', '.join(names)}\. {expected} Rename or remove"
    ):
        lines(stored(table), EVENTS.line)


# Values that are no integers and no text


@pytest.mark.parametrize(
    ("value", "json_value", "message"),
    [
        (pa.array([None], pa.int64()), None, "Expected `int`, got `null`"),
        (pa.nulls(1), None, "Expected `int`, got `null`"),
        (pa.array([float("nan")]), None, "Expected `int`, got `null`"),
        (pa.array([float("-inf")]), None, "Expected `int`, got `null`"),
        (pa.array([1.5]), 1.5, "Expected `int`, got `float`"),
        (pa.array([np.float16(1.5)]), 1.5, "Expected `int`, got `float`"),
        (pa.array([2**64 - 1], pa.uint64()), 2**64 - 1, "Expected `int` <= 9223372036854775807"),
        (pa.array([-1], pa.int8()), -1, "Expected `int` >= 0"),
        (pa.array([Decimal("1.50")]), "1.50", "Expected `int`, got `str`"),
        (pa.array([True]), True, "Expected `int`, got `bool`"),
        (
            pa.array([datetime(2022, 8, 1, 1, 2, 3)]),
            "2022-08-01 01:02:03",
            "Expected `int`, got `str`",
        ),
        (
            pa.array([0], pa.timestamp("ms", "UTC")),
            "1970-01-01T00:00:00+00:00",
            "Expected `int`, got `str`",
        ),
        (pa.array([date(2022, 8, 1)]), "2022-08-01", "Expected `int`, got `str`"),
        (pa.array([time(1, 2)]), "01:02:00", "Expected `int`, got `str`"),
        (pa.array([timedelta(1)]), "PT86400S", "Expected `int`, got `str`"),
        (pa.array(["a"]).dictionary_encode(), "a", "Expected `int`, got `str`"),
        (pa.array(['"\n\0é\\']), '"\n\0é\\', "Expected `int`, got `str`"),
        (pa.array([[1, None]]), [1, None], "Expected `int`, got `array`"),
        (pa.array([{"a": 1}]), {"a": 1}, "Expected `int`, got `object`"),
        (
            pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())),
            {"a": 1},
            "Expected `int`, got `object`",
        ),
    ],
    ids=lambda v: str(v.type) if isinstance(v, pa.Array) else "",
)
def test_any_value_becomes_json_that_is_judged_later(value, json_value, message):
    (line,) = lines(stored(pa.table({"session": [1], "aid": value, "ts": [1], "type": ["clicks"]})))
    assert json.loads(line) == {"session": 1, "aid": json_value, "ts": 1, "type": "clicks"}
    with pytest.raises(msgspec.ValidationError, match=message):
        msgspec.json.decode(line, type=Row)


def test_categories_are_text():
    categories = {**FLAT, "type": pa.array(FLAT["type"]).dictionary_encode()}
    assert lines(stored(pa.table(categories))) == lines(stored(pa.table(FLAT)))


@pytest.mark.parametrize(
    "value",
    [
        pa.array([b"\xff"]),
        pa.array([b"1"]).dictionary_encode(),
        pa.array([b"12"], pa.binary(2)),
        pa.array([uuid.uuid4().bytes], pa.uuid()),
        pa.array([Decimal(1)], pa.decimal256(60)),
        pa.array([[b"a"]]),
        pa.array([{"a": [b"a"]}]),
    ],
    ids=lambda v: str(v.type),
)
def test_a_type_that_json_cannot_hold_is_named(value):
    table = pa.table({**FLAT, "aid": pa.concat_arrays([value] * 3)})
    with pytest.raises(
        ParquetError, match=r"has columns whose type JSON cannot hold: aid \(.*\)\. Store text or"
    ):
        lines(stored(table))


@pytest.mark.parametrize(
    "value",
    [pa.array([2**62], pa.timestamp("ms")), pa.array([[(1, 1)]], pa.map_(pa.int64(), pa.int64()))],
)
def test_what_polars_cannot_write_is_an_error_of_the_file(value):
    with pytest.raises(ParquetError, match="is not a sound Parquet file"):
        lines(stored(pa.table({"session": [1], "aid": value, "ts": [1], "type": ["clicks"]})))


def test_text_that_is_not_utf8_is_kept_byte_for_byte_and_judged_line_by_line():
    offsets, text = np.array([0, 6, 9], np.int32), b"clicks\xff\xfec"
    broken = pa.StringArray.from_buffers(2, pa.py_buffer(offsets), pa.py_buffer(text))
    good, bad = lines(
        stored(pa.table({"session": [1, 2], "aid": [1, 2], "ts": [1, 2], "type": broken}))
    )
    assert good == b'{"session":1,"aid":1,"ts":1,"type":"clicks"}'
    assert bad == b'{"session":2,"aid":2,"ts":2,"type":"\xff\xfec"}'


# Size, and damage


def test_chunks_are_about_as_large_as_asked_for():
    n = 50_000
    nested = [
        [{"aid": i, "ts": 1_659_304_800_000, "type": "clicks"}] * (i % 40) for i in range(n // 20)
    ]
    tables = [
        pa.table(
            {
                "session": range(n),
                "aid": range(n),
                "ts": [1_659_304_800_000] * n,
                "type": ["orders"] * n,
            }
        ),
        pa.table({"session": range(n // 20), "events": pa.array(nested, pa.list_(ITEM))}),
        pa.table(
            {
                "session": range(1000),
                "aid": range(1000),
                "ts": range(1000),
                "type": [f"{i}" * 999 for i in range(1000)],
            }
        ),
    ]
    for table in tables:
        line = EVENTS.line if "events" in table.column_names else Row
        chunks = raws(stored(table), line, chunk_bytes=100_000)
        sizes = [int((raw.ends - raw.starts).sum()) for raw in chunks]
        assert max(sizes) < 200_000
        assert np.mean(sizes) > 30_000


def test_a_damaged_file_is_refused_or_has_the_right_lines():
    n = 200
    table = pa.table(
        {
            "session": range(n),
            "aid": range(n),
            "ts": range(n),
            "type": ["clicks", "carts"] * (n // 2),
        }
    )
    content = stored(table, row_group_size=60, write_page_checksum=True).getvalue()
    expected, refused = lines(io.BytesIO(content)), 0
    for seed in range(400):
        rng, damaged = random.Random(seed), bytearray(content)
        for _ in range(rng.choice([1, 5, 50])):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        if seed % 4 == 0:
            del damaged[rng.randrange(len(damaged)) : -8 * rng.randrange(2) or None]
        try:
            decoded = lines(io.BytesIO(bytes(damaged)))
        except ParquetError:
            refused += 1
        else:
            assert decoded == expected
    assert refused > 300


def test_fewer_rows_than_promised_are_an_error(monkeypatch):
    batches = pq.ParquetFile.iter_batches
    monkeypatch.setattr(
        parquet.ParquetFile, "iter_batches", lambda *a, **k: (b[:1] for b in batches(*a, **k))
    )
    with pytest.raises(ParquetError, match="has 1 of 3 rows"):
        lines(stored(pa.table(FLAT)))
