"""Files as shops and their tools export them, and the mapping of each: every row is accounted for,
and becomes what it should."""

import gzip
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pandera.polars as pa
import polars as pl
import pytest

from kreislauf import lake, sources
from models import conversion
from models import mapping as mappings
from models.fields import END_MS, FIRST_MS
from models.session_recommender.schema import EVENTS, Event
from tests.conftest import ROOT

TIME = int(datetime(2022, 8, 29, 12, 30, 15, 250_000, UTC).timestamp() * 1000)
"""12:30:15.250 UTC on a summer's day."""


def csv(*rows: str, end: str = "\n") -> bytes:
    return "".join(row + end for row in rows).encode()


def json_lines(*rows: dict) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def parquet(**columns: object) -> Callable[[Path], object]:
    return lambda path: pl.DataFrame(columns).write_parquet(path)


@dataclass(frozen=True)
class Shape:
    """A source, its mapping, and what becomes of it."""

    name: str
    content: bytes | Callable[[Path], object]
    mapping: str
    rows: list[tuple[int, int, int, str]]
    """Session, article, ms and type of each."""
    rejected: tuple[tuple[str, str], ...] = ()
    """Reason code and rule of each line."""
    left_out: int = 0


OWN = "columns: {session: session, aid: aid, type: type, "
TYPED = "columns: {session: s, aid: a, ts: {from: t, unit: ms}, type: "
WITH_ISO = "columns: {session: s, aid: a, type: {constant: clicks}, ts: {from: t, format: iso"

SHAPES = [
    Shape(
        "retailrocket.csv",
        csv(
            "timestamp,visitorid,event,itemid,transactionid",
            f"{TIME},257597,view,355908,",
            f"{TIME},992329,addtocart,248676,",
            f"{TIME},992329,transaction,248676,4000",
            f"{TIME},111016,wishlist,318965,",
        ),
        """
        columns:
          session: visitorid
          aid: itemid
          ts: {from: timestamp, unit: ms}
          type: {from: event, values: {view: clicks, addtocart: carts, transaction: orders}}
        ignored: [transactionid]
        """,
        [
            (257597, 355908, TIME, "clicks"),
            (992329, 248676, TIME, "carts"),
            (992329, 248676, TIME, "orders"),
        ],
        (
            (
                "unknown-value",
                "Expected `event` to be one of view, addtocart, transaction, got 'wishlist'",
            ),
        ),
    ),
    Shape(
        "yoochoose-clicks.csv",
        csv("1,2022-08-29T12:30:15.250Z,214536502,0", "1,2022-08-29T12:30:15.25Z,214536500,0"),
        """
        columns:
          session: session
          aid: item
          ts: {from: time, format: iso}
          type: {constant: clicks}
        ignored: [category]
        csv: {names: [session, time, item, category]}
        """,
        [(1, 214536502, TIME, "clicks"), (1, 214536500, TIME, "clicks")],
    ),
    Shape(
        "rees46-2019-Oct.csv.gz",
        gzip.compress(
            csv(
                "event_time,event_type,product_id,category_code,brand,price,user_id,user_session",
                "2022-08-29 12:30:15 UTC,view,44600062,,shiseido,35.79,541312140,7",
                '2022-08-29 12:30:15 UTC,purchase,3900821,"a,b",aqua,33.20,554748717,8',
            )
        ),
        """
        columns:
          session: user_session
          aid: product_id
          ts: {from: event_time, format: iso}
          type: {from: event_type, values: {view: clicks, cart: carts, purchase: orders}}
        ignored: [category_code, brand, price, user_id]
        """,
        [(7, 44600062, TIME - 250, "clicks"), (8, 3900821, TIME - 250, "orders")],
    ),
    Shape(
        "shopify-orders.csv",
        csv(
            "Order ID;Created at;Lineitem variant;Note",
            '1001;2022-08-29 14:30:15 +0200;31;"two\nlines; and a ""quote"""',
            "1002;2022-08-29 14:30:15 +0200;32;",
            end="\r\n",
        ),
        """
        columns:
          session: Order ID
          aid: Lineitem variant
          ts: {from: Created at, format: iso}
          type: {constant: orders}
        ignored: [Note]
        """,
        [(1001, 31, TIME - 250, "orders"), (1002, 32, TIME - 250, "orders")],
    ),
    Shape(
        "german-excel.csv",
        b"\xef\xbb\xbf" + csv("Sitzung;Artikel;Zeit", "1;5;29.08.2022 14:30:15", end="\r\n"),
        """
        columns:
          session: Sitzung
          aid: Artikel
          ts: {from: Zeit, format: "%d.%m.%Y %H:%M:%S", zone: Europe/Berlin}
          type: {constant: clicks}
        """,
        [(1, 5, TIME - 250, "clicks")],
    ),
    Shape(
        "clock-change.csv",
        csv("s\ta\tt", "1\t5\t2022-10-30 02:30:00", "1\t6\t2022-10-30 04:30:00"),
        WITH_ISO + ", zone: Europe/Berlin}}",
        [(1, 6, 1667100600000, "clicks")],
        (
            (
                "wrong-time",
                "Expected `t` to be a time in ISO format that Europe/Berlin has once (not when the "
                "clocks change), got '2022-10-30 02:30:00'",
            ),
        ),
    ),
    Shape(
        "no-offset.csv",
        csv("s|a|t", "1|5|2022-08-29T12:30:15.250", "2|5|2022-08-29T12:30:15.250+00:00"),
        WITH_ISO + "}}",
        [(2, 5, TIME, "clicks")],
        (
            (
                "wrong-time",
                "Expected `t` to be a time in ISO format with its offset from UTC, "
                "got '2022-08-29T12:30:15.250'",
            ),
        ),
    ),
    Shape(
        "ragged.csv",
        csv("session,aid,ts,type", f"1,5,{TIME}", f"1,6,{TIME},clicks", f"1,7,{TIME},clicks,x", ""),
        "",
        [(1, 6, TIME, "clicks")],
        (
            ("wrong-columns", "Expected 4 columns, got 3"),
            ("wrong-columns", "Expected 4 columns, got 5"),
        ),
    ),
    Shape(
        "wrong-values.csv",
        csv(
            "session,aid,ts,type",
            f"1,12x,{TIME},clicks",
            f"1,,{TIME},clicks",
            f"1,1.5,{TIME},clicks",
            f"1,99999999999999999999,{TIME},clicks",
            f"1,13.0,{TIME}, clicks ",
        ),
        "",
        [(1, 13, TIME, "clicks")],
        (
            ("wrong-type", "Expected `aid` to be a whole number, got '12x'"),
            ("missing-field", "`aid` has no value"),
            ("wrong-type", "Expected `aid` to be a whole number, got '1.5'"),
            ("wrong-type", "Expected `aid` to be a whole number, got '99999999999999999999'"),
        ),
    ),
    Shape(
        "latin-1.csv",
        f"session,aid,ts,type\n1,5,{TIME},Käufe\n1,5,{TIME},clicks\n".encode("latin-1"),
        "",
        [(1, 5, TIME, "clicks")],
        (("bad-utf8", "Invalid UTF-8"),),
    ),
    Shape(
        "segment-track.json.gz",
        gzip.compress(
            json_lines(
                {
                    "event": "Product Viewed",
                    "timestamp": "2022-08-29T12:30:15.250Z",
                    "context": {"ip": "10.0.0.1", "page": {"url": "/"}},
                    "properties": {"product_id": "507", "session": 12, "price": 19.9},
                },
                {
                    "event": "Email Opened",
                    "timestamp": "2022-08-29T12:30:15.250Z",
                    "properties": None,
                },
                {"event": "Product Viewed", "properties": {"sku": 1}},
            )
        ),
        """
        columns:
          session: properties.session
          aid: properties.product_id
          ts: {from: timestamp, format: iso}
          type: {from: event, values: {Product Viewed: clicks, Product Added: carts}}
        ignored: [context, properties.price]
        only: {event: [Product Viewed, Product Added]}
        """,
        [(12, 507, TIME, "clicks")],
        (
            (
                "unknown-field",
                "Object contains unknown field `properties.sku`: use it in the mapping, or name it "
                "under `ignored`",
            ),
        ),
        left_out=1,
    ),
    Shape(
        "ga4.ndjson",
        json_lines(
            {"event_timestamp": str(TIME * 1000 + 7), "event_name": "view_item", "sid": 5, "id": 9}
        ),
        """
        columns:
          session: sid
          aid: id
          ts: {from: event_timestamp, unit: us}
          type: {from: event_name, values: {view_item: clicks}}
        """,
        [(5, 9, TIME, "clicks")],
    ),
    Shape(
        "matomo.jsonl",
        json_lines({"visit": 5, "item": 9, "at": TIME / 1000}, {"visit": 5, "item": 8, "at": "x"}),
        "columns: {session: visit, aid: item, type: {constant: clicks}, ts: {from: at, unit: s}}",
        [(5, 9, TIME, "clicks")],
        (("wrong-time", "Expected `at` to be a time in s, got 'x'"),),
    ),
    Shape(
        "flat.JSONL",
        json_lines({"session": 1, "aid": 2, "ts": TIME, "type": "carts"}),
        "",
        [(1, 2, TIME, "carts")],
    ),
    Shape(
        "both.jsonl",
        json_lines(
            {"session": 1, "aid": 2, "ts": TIME, "type": "carts"},
            {"session": 2, "events": [{"aid": 3, "ts": TIME, "type": "clicks"}]},
            {"session": 3, "events": []},
            {"session": 4, "aid": 5},
        ),
        "",
        [(1, 2, TIME, "carts"), (2, 3, TIME, "clicks")],
        (
            ("out-of-range", "Expected `array` of length >= 1 - at `$.events`"),
            ("missing-field", "Object missing required field `ts`"),
        ),
    ),
    Shape(
        "repeated.jsonl",
        b'{"session":1,"aid":2,"aid":3,"ts":%d,"type":"carts"}\n' % TIME
        + json_lines({"session": 1, "aid": 4, "ts": TIME, "type": "carts"}),
        OWN + "ts: {from: ts, unit: ms}}",
        [(1, 4, TIME, "carts")],
        (("duplicate-field", "Object contains field `aid` more than once"),),
    ),
    Shape(
        "kaggle-radek.parquet",
        parquet(session=[1, 1], aid=[2, 3], ts=[TIME // 1000] * 2, type=[0, 2]),
        """
        columns:
          session: session
          aid: aid
          ts: {from: ts, unit: s}
          type: {from: type, values: {0: clicks, 1: carts, 2: orders}}
        """,
        [(1, 2, TIME - 250, "clicks"), (1, 3, TIME - 250, "orders")],
    ),
    Shape(
        "pandas.parquet",
        parquet(
            session=[1, 2, 3],
            aid=[5.0, None, 6.5],
            ts=pl.Series([TIME] * 3).cast(pl.Datetime("ms", "Europe/Berlin")),
            type=pl.Series(["clicks"] * 3, dtype=pl.Categorical),
            __index_level_0__=[0, 1, 2],
        ),
        "",
        [(1, 5, TIME, "clicks")],
        (
            ("missing-field", "`aid` has no value"),
            ("wrong-type", "Expected `aid` to be a whole number, got '6.5'"),
        ),
    ),
    Shape(
        "unsigned.parquet",
        parquet(
            session=pl.Series([1, 2**64 - 1], dtype=pl.UInt64),
            aid=pl.Series([b"5", b"6"]).cast(pl.String),
            ts=pl.Series([TIME * 1_000_000] * 2, dtype=pl.Datetime("ns")),
            type=["orders"] * 2,
        ),
        "",
        [(1, 5, TIME, "orders")],
        (
            (
                "wrong-type",
                "Expected `session` to be a whole number, got '18446744073709551615'",
            ),
        ),
    ),
    Shape(
        "hive/type=clicks/hour=12/part-0.parquet",
        parquet(session=[1], aid=[2], ts=[TIME]),
        "",
        [(1, 2, TIME, "clicks")],
    ),
    Shape(
        "lines-in-the-last-value.csv",
        csv("session,aid,ts,type,note", f'1,2,{TIME},clicks,"a', 'b"', "1,2"),
        """
        columns: {session: session, aid: aid, ts: {from: ts, unit: ms}, type: type}
        ignored: [note]
        """,
        [(1, 2, TIME, "clicks")],
        [("wrong-columns", "Expected 5 columns, got 2")],
    ),
    Shape("empty.parquet", parquet(session=[], aid=[], ts=[], type=[]), "", []),
    Shape("only-a-header.csv", csv("session,aid,ts,type"), "", []),
]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_a_shape_is_loaded_with_every_row_accounted_for(shape: Shape, tmp_path: Path):
    path = tmp_path / shape.name
    accounts, mapping = load(shape, path)
    rows = lake.read(EVENTS).select("session", "aid", "ts", "type").rows()
    assert sorted(rows) == sorted(shape.rows)
    rejects = lake.rejects(EVENTS)
    assert sorted(rejects.select("reason", "rule").rows()) == sorted(shape.rejected)
    assert accounts.lines_loaded == len(shape.rows)
    assert accounts.lines_left_out == shape.left_out
    if mapping:
        assert accounts.mapping == mapping
    again = lake.load_file(EVENTS, sources.open_file(str(path), EVENTS, mapping))
    assert again.already_loaded
    if shape.rejected:
        assert lake.replay(EVENTS, str(path), accounts.sha256, mapping).lines_loaded == 0
        assert sorted(lake.rejects(EVENTS)["raw"]) == sorted(rejects["raw"])


def load(shape: Shape, path: Path) -> tuple[lake.Accounts, mappings.Mapping | None]:
    """The accounts of a shape's load, and its mapping."""
    write(shape, path)
    mapping = None
    if shape.mapping:
        file = path.parent / "mapping.yaml"
        file.write_text(shape.mapping)
        mapping = mappings.read(str(file), EVENTS)
    return lake.load_file(EVENTS, sources.open_file(str(path), EVENTS, mapping)), mapping


def write(shape: Shape, path: Path) -> None:
    """Write a shape's file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if callable(shape.content):
        shape.content(path)
    else:
        path.write_bytes(shape.content)


def test_a_changed_mapping_is_a_new_source_and_mends_what_was_rejected(tmp_path: Path):
    shape = SHAPES[0]
    path = tmp_path / shape.name
    accounts, _ = load(shape, path)
    text = shape.mapping.replace("view: clicks,", "view: clicks, wishlist: clicks,")
    (tmp_path / "mapping.yaml").write_text(text)
    mapping = mappings.read(str(tmp_path / "mapping.yaml"), EVENTS)
    replayed = lake.replay(EVENTS, str(path), accounts.sha256, mapping)
    assert (replayed.lines_loaded, replayed.lines_rejected) == (1, 0)
    assert (111016, 318965, TIME, "clicks") in lake.read(EVENTS).rows()
    again = lake.load_file(EVENTS, sources.open_file(str(path), EVENTS, mapping))
    assert (again.already_loaded, again.rows_kept, again.rows_duplicate) == (False, 0, 4)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", csv("session,aid,ts,type,x", f"1,2,{TIME},clicks,3"), "does not mention: x"),
        ("a.csv", csv("session,aid,type", "1,2,clicks"), "lacks ts; its columns are session, aid"),
        ("a.csv", csv("session,aid,ts,type").decode().encode("utf-16"), "is UTF-16 or binary"),
        ("a.csv", csv("session,aid,ts,type,aid"), "several columns called aid"),
        (
            "a.csv",
            csv("session,aid,ts,type", '1,"2', "3"),
            "opens a quote in record 1",
        ),
        (
            "a.csv",
            csv("session,aid,ts,type", f"1,2,{TIME},clicks", f'1,3,{TIME},"clicks', "1,4,5,carts"),
            "opens a quote in record 2",
        ),
        ("a.csv.gz", b"\x1f\x8b", "is cut off"),
        ("a.parquet", parquet(session=[1], aid=[2], ts=[3], kind=["clicks"]), "lacks type"),
        ("a.csv", b"", "is empty"),
        ("a.parquet", parquet(session=[1], aid=[[2]], ts=[TIME], type=["x"]), r"values: aid \(.*"),
        (
            "a.parquet",
            parquet(session=[1], aid=[timedelta(1)], ts=[TIME], type=["clicks"]),
            r"hold no single values: aid \(duration",
        ),
        (
            "a.parquet",
            parquet(
                session=[1], aid=[2], ts=pl.Series([2**62]).cast(pl.Datetime("ms")), type=["clicks"]
            ),
            "has times in ts outside of the years 1 to 9999",
        ),
    ],
)
def test_a_file_of_another_shape_is_refused_with_its_cure(tmp_path, name, content, message):
    with pytest.raises(sources.SourceError, match=message):
        load(Shape(name, content, "", []), tmp_path / name)


class NoOrders(Event):
    type: pl.Enum = pa.Field(dtype_kwargs={"categories": ("clicks", "carts")})


@pytest.mark.parametrize(
    "shape",
    [
        Shape(
            "a.csv", csv("session,aid,ts,type", f"1,5,{TIME},orders", f"1,6,{TIME},carts"), "", []
        ),
        *(
            Shape(
                f"{unit}-{zone and zone[:3]}.parquet",
                parquet(
                    session=[1.0, 1.0],
                    aid=[5, 6],
                    ts=pl.Series([TIME] * 2).cast(pl.Datetime("ms", zone)).dt.cast_time_unit(unit),
                    type=["orders", "carts"],
                ),
                "",
                [],
            )
            for unit in ("ms", "us", "ns")
            for zone in (None, "UTC", "Asia/Tokyo")
        ),
    ],
    ids=lambda shape: shape.name,
)
def test_rows_come_back_from_the_quarantine_when_a_rule_was_mended(shape: Shape, tmp_path: Path):
    path = tmp_path / shape.name
    before = replace(EVENTS, schema=NoOrders)
    write(shape, path)
    accounts = lake.load_file(before, sources.open_file(str(path), before))
    assert (accounts.lines_loaded, accounts.lines_rejected) == (1, 1)
    replayed = lake.replay(EVENTS, str(path), accounts.sha256)
    assert (replayed.lines_loaded, replayed.lines_rejected) == (1, 0)
    assert (1, 5, TIME, "orders") in lake.read(EVENTS).rows()


@pytest.mark.parametrize(("unit", "places"), [("s", 3), ("ms", 0), ("us", -3), ("ns", -6)])
def test_times_keep_their_milliseconds_in_every_unit(unit: str, places: int):
    column = mappings.Column.model_validate({"from": "t", "unit": unit})
    expected = random.Random(0).choices(range(FIRST_MS, END_MS), k=10_000)
    for values in (
        pl.Series([time / 10**places if places > 0 else time * 10**-places for time in expected]),
        pl.Series([f"{Decimal(time).scaleb(-places):f}" for time in expected]),
    ):
        assert conversion.milliseconds(values, column).to_list() == expected


def test_values_are_left_out_of_the_rules_that_are_counted(tmp_path: Path):
    rows = [f'1,"a\n{number}",{TIME},clicks' for number in range(5)]
    accounts, _ = load(
        Shape("a.csv", csv("session,aid,ts,type", *rows), "", []), tmp_path / "a.csv"
    )
    assert [(r.rule, r.lines) for r in accounts.reasons] == [
        ("Expected `aid` to be a whole number", 5)
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("columns: {session: s, aid: a, type: t}", "ts is missing"),
        ("columns: {session: s, aid: a, type: t, ts: x, b: c}", "b is none"),
        ("columns: {session: s, aid: a, type: t, ts: x}", "columns.ts` has to say what its times"),
        (OWN + "ts: {from: ts, format: '%d.%m.%Y'}}", "has to say the `zone`"),
        (OWN + "ts: {from: ts, unit: min}}", "`columns.ts.unit`: Input should be 's', 'ms'"),
        (OWN + "ts: {from: ts, unit: ms, format: iso}}", "either `unit`, for numbers, or `format`"),
        (OWN + "ts: {from: ts, format: iso, zone: Mars}}", "'Mars' is no time zone"),
        (OWN + "ts: {unit: ms}}", "either `from`, the source's column, or `constant`"),
        (
            OWN + "ts: {from: ts, unit: ms}}\nignore: [a]",
            "`ignore`: there is no such word; there are model, columns, ",
        ),
        (OWN + "ts: {from: ts, unit: ms}}\nignored: [aid]", "aid cannot be both used and ignored"),
        (OWN + "ts: {from: ts, unit: ms, values: {1: a}}}", "`columns.ts.values` has no meaning"),
        (
            TYPED + "{from: t, values: {view: click, buy: orders}}}",
            "`columns.type` makes click, which type never is. It is clicks, carts, orders",
        ),
        (TYPED + "{constant: view}}", "`columns.type` makes view, which type never is"),
        ("columns: [", "is no YAML"),
        ("", "is empty"),
        (
            OWN + "ts: {from: ts, units: ms}}",
            "`columns.ts.units`: there is no such word; there are",
        ),
        (OWN + "ts: {constant: '2025-01-01'}}", "columns.ts` has to say what its times are"),
        (
            OWN + "ts: {from: ts, format: '%d.%m.%Y %Z', zone: UTC}}",
            "%Z in `format` reads the name",
        ),
        (OWN + "ts: {from: ts, format: iso, zone: localtime}}", "'localtime' is no time zone"),
        (TYPED + "{from: t, unit: s}}", "`columns.type.unit` has no meaning: type is no time"),
        ("columns: {aid: {from: a, values: {1: '2'}}}", "session is missing"),
        (
            OWN.replace("aid: aid", "aid: {from: aid, values: {1: '2'}}")
            + "ts: {from: ts, unit: ms}}",
            "`columns.aid.values` has no meaning: aid takes any value",
        ),
    ],
)
def test_a_mapping_that_cannot_work_is_refused_with_its_place(tmp_path, text, message):
    path = tmp_path / "mapping.yaml"
    path.write_text(text)
    with pytest.raises(mappings.MappingError, match=message):
        mappings.read(str(path), EVENTS)


def test_words_of_a_mapping_are_those_of_the_source_as_written(tmp_path):
    lines = [
        f'{{"s": 1, "a": {aid}, "t": {TIME}, "bought": {bought}, "bot": {bot}, "code": "{code}"}}'
        for aid, bought, bot, code in [
            (5, "true", "false", "01"),
            (6, "false", "false", "01"),
            (7, "true", "true", "01"),
            (8, "true", "false", "1"),
        ]
    ]
    text = (
        "columns: {session: s, aid: a, ts: {from: t, unit: ms}, "
        "type: {from: bought, values: {true: orders, false: clicks}}}\n"
        "only: {bot: [false], code: [01]}\n"
    )
    accounts, _ = load(Shape("a.jsonl", csv(*lines), text, []), tmp_path / "a.jsonl")
    rows = lake.read(EVENTS).sort("aid").select("aid", "type").rows()
    assert rows == [(5, "orders"), (6, "clicks")]
    assert (accounts.lines_left_out, accounts.lines_rejected) == (2, 0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("2022-08-29 12:30:15.250+00", "format: iso"),
        ("2022-08-29T14:30:15,250+02:00", "format: iso"),
        ("2022-08-29t12:30:15.250z", "format: iso"),
        ("29.08.2022 14:30:15.250+02", "format: '%d.%m.%Y %H:%M:%S%.f%#z'"),
        ("29.08.2022 14:30:15.250+02:00", "format: '%d.%m.%Y %H:%M:%S%.f%:z'"),
    ],
)
def test_times_with_their_offset_need_no_zone(tmp_path, text, words):
    mapping = (
        f"columns: {{session: s, aid: a, type: {{constant: clicks}}, ts: {{from: t, {words}}}}}"
    )
    shape = Shape("a.csv", csv("s|a|t", f"1|5|{text}"), mapping, [])
    load(shape, tmp_path / "a.csv")
    assert lake.read(EVENTS)["ts"].to_list() == [TIME]


def test_a_minute_with_its_offset_is_a_time(tmp_path):
    mapping = WITH_ISO + "}}"
    shape = Shape("a.csv", csv("s|a|t", "1|5|2022-08-29T14:30+02:00"), mapping, [])
    load(shape, tmp_path / "a.csv")
    assert lake.read(EVENTS)["ts"].to_list() == [TIME - 15_250]


def test_the_schema_for_editors_is_that_of_the_code():
    stored = json.loads((ROOT / "docs" / "mapping.schema.json").read_text())
    assert stored == mappings.json_schema(), "write json.dumps(json_schema(), indent=2) there"
