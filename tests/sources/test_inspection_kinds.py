"""Kinds of files that `make inspect` could misread, as tools export them."""

import gzip
from pathlib import Path

import pytest

from kreislauf.inspection import names
from kreislauf.inspection.look import Inspection, look, try_mapping
from kreislauf.sources import SourceError
from models import mapping as mappings
from models.mapping import Mapping
from tests.sources.test_shapes import TIME, csv, json_lines


def inspected(tmp_path: Path, name: str, content: bytes) -> Inspection:
    (tmp_path / name).write_bytes(content)
    return look(str(tmp_path / name))


def read_back(seen: Inspection, tmp_path: Path) -> Mapping:
    """The proposed mapping, which asks nothing."""
    assert seen.mapping is not None
    (tmp_path / "proposed.yaml").write_text(seen.mapping)
    _, mapping = mappings.find(str(tmp_path / "proposed.yaml"), None)
    assert mapping is not None
    return mapping


def comments(seen: Inspection) -> str:
    """The text of the proposed mapping without its line breaks."""
    return " ".join((seen.mapping or "").replace("#", "").split())


def events(**fields: object) -> dict[str, object]:
    return {"session_id": 1, "item_id": 7, "ts": TIME, "event": "view"} | fields


def test_a_row_is_looked_at_whatever_kind_a_field_has_in_it(tmp_path: Path):
    rows = [events(ctx={"a": 1}), events(event="purchase", ctx=[]), events(ts=TIME + 1, ctx="x")]
    seen = inspected(tmp_path, "a.jsonl", json_lines(*rows))
    mapping = read_back(seen, tmp_path)
    assert mapping.columns["type"].values == {"view": "clicks", "purchase": "orders"}
    assert mapping.ignored == ["ctx"]
    assert (seen.rows_loaded, seen.rows_rejected) == (3, 0)


def test_a_field_is_used_of_what_is_an_object_in_most_rows(tmp_path: Path):
    rows = [{"session_id": 1, "ts": TIME + n, "event": "view"} for n in range(3)]
    rows = [rows[0] | {"of": "none", "x": 1}, *(r | {"of": {"sku": 7, "y": 2}} for r in rows[1:])]
    seen = inspected(tmp_path, "a.jsonl", json_lines(*rows))
    mapping = read_back(seen, tmp_path)
    assert mapping.columns["aid"].read == "of.sku"
    assert mapping.ignored == ["x", "of.y"]
    assert seen.rows_loaded == 2


def test_a_key_without_a_name_hides_no_other(tmp_path: Path):
    rows = [events(ts=TIME + n, **{"": n, "of": {"": n}}) for n in range(3)]
    seen = inspected(tmp_path, "a.jsonl", json_lines(*rows))
    assert "|            | whole numbers | 100%   | 3" in seen.report
    assert read_back(seen, tmp_path).ignored == ["", "of"]
    assert (seen.rows_loaded, seen.rows_rejected) == (3, 0)


def test_the_objects_around_a_field_say_what_it_is(tmp_path: Path):
    of = {"customer_id": "c1", "user": {"id": "u1"}, "product": {"id": "p1", "type": "shoe"}}
    row = of | {"session": {"id": "s1"}, "event": {"type": "view", "time": TIME, "id": 4}}
    mapping = read_back(inspected(tmp_path, "a.jsonl", json_lines(row)), tmp_path)
    used = [mapping.columns[name].read for name in ("session", "aid", "ts", "type")]
    assert used == ["session.id", "product.id", "event.time", "event.type"]
    flat = csv("session.id,Item No.,user.id,ts,event.name", f"s1,p1,c1,{TIME},view")
    mapping = read_back(inspected(tmp_path, "a.csv", flat), tmp_path)
    used = [mapping.columns[name].read for name in ("session", "aid", "ts", "type")]
    assert used == ["session.id", "Item No.", "ts", "event.name"]


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("properties.product_id", "productid"),
        ("product.data.key", "productid"),
        ("properties.id", "id"),
        ("category.id", "categoryid"),
        ("user.session", "usersession"),
        ("order.item.sku", "itemsku"),
        ("product.type", "producttype"),
        ("properties.type", "type"),
        ("user.created_at", "createdat"),
        ("Order No.", "orderno"),
        ("id.", "id"),
        (".", ""),
    ],
)
def test_the_path_of_a_field_is_its_name(name: str, plain: str):
    assert names.plain(name) == plain


def visits(*of_users: str) -> bytes:
    """A row for each visit and visitor."""
    rows = [f"{row},{n % 3},{TIME + n},view" for n, row in enumerate(of_users)]
    return csv("visit,visitor_id,sku,ts,event", *rows)


def test_visits_that_are_numbered_for_each_visitor_are_doubted(tmp_path: Path):
    seen = inspected(tmp_path, "a.csv", visits(*[f"{n % 4},u{n % 5}" for n in range(40)]))
    assert (seen.choices, seen.model) == (("session",), "session_recommender_text")
    doubt = "4 of 4 values of visit have several users in visitor_id. It seems to count"
    assert doubt in seen.report
    assert doubt in comments(seen)
    assert "session: {user: visitor_id, gap_minutes: 30}" in comments(seen)
    assert "session: visit session: CHOOSE" in comments(seen)
    assert seen.rows_loaded == 40
    assert seen.mapping is not None
    for choice in ("{user: visitor_id, gap_minutes: 30}", "visit"):
        text = seen.mapping.replace("session: CHOOSE", f"session: {choice}")
        unused = "visit" if "user" in choice else "visitor_id"
        lines = [line for line in text.splitlines() if "delete this line" not in line]
        (tmp_path / "chosen.yaml").write_text("\n".join([*lines, f"  - {unused}"]))
        tried = try_mapping(str(tmp_path / "a.csv"), str(tmp_path / "chosen.yaml"))
        assert tried.rows_loaded == 40
    numbers = look(str(tmp_path / "a.csv"), "session_recommender")
    assert numbers.choices == ()
    assert "Better say `user` and `gap_minutes`" in numbers.report


def test_a_login_within_a_session_is_no_reason_to_ask(tmp_path: Path):
    of_users = [f"{n // 2},u{n // 2}" for n in range(40)]
    seen = inspected(tmp_path, "a.csv", visits(*of_users, "0,u99"))
    assert seen.choices == ()
    assert "1 of 20 values of visit have several users in visitor_id." in seen.report
    guests = [f"{n // 2},guest" for n in range(40)]
    seen = inspected(tmp_path, "b.csv", visits(*of_users, *guests))
    assert seen.choices == ()
    assert "several users" not in seen.report


@pytest.mark.parametrize(
    ("delimiter", "time"),
    [
        ("|", "24/Nov/2025:16:00:15 +0000"),
        (",", "24 Nov 2025 16:00:15"),
        (",", "Nov 24 16:00:15 2025"),
        (";", "1764000015"),
    ],
)
def test_a_first_row_that_is_an_event_is_no_header(tmp_path: Path, delimiter: str, time: str):
    rows = [["s1", "SKU1", time, "purchase"], ["s2", "SKU2", time, "view"]]
    seen = inspected(tmp_path, "a.csv", csv(*map(delimiter.join, rows)))
    assert "without a header. Rows looked at: 2, all." in seen.report
    assert "csv: {names: [column_1, column_2, column_3, column_4]}" in comments(seen)
    assert "purchase: orders" in comments(seen)


def test_a_header_may_have_words_of_events(tmp_path: Path):
    for header in ("visit,sku,ts,purchase", "a,b,c,view"):
        seen = inspected(tmp_path, "a.csv", csv(header, f"1,2,{TIME},0", f"1,3,{TIME},1"))
        assert "without a header" not in seen.report
        assert seen.rows == 2


def test_nothing_is_advised_where_no_word_of_an_event_is_plain(tmp_path: Path):
    rows = [f"1,2,{TIME},0{n}" for n in (1, 2, 3)]
    seen = inspected(tmp_path, "a.csv", csv("session_id,item_id,ts,event", *rows))
    assert seen.choices == ("type",)
    assert "only:" not in comments(seen)


def test_a_column_without_a_name_is_ignored(tmp_path: Path):
    index = csv(",session_id,product_id,ts,event", f"0,1,7,{TIME},view", f"1,1,8,{TIME},cart")
    trailing = csv("session,aid,ts,type,", f"1,7,{TIME},clicks,", f"1,8,{TIME},carts,")
    for content, held in ((index, "whole numbers, such as 0, 1"), (trailing, "empty")):
        seen = inspected(tmp_path, "a.csv", content)
        mapping = read_back(seen, tmp_path)
        assert mapping.ignored == [""]
        assert f"a column without a name; {held}" in comments(seen)
        assert (seen.rows_loaded, seen.rows_rejected) == (2, 0)
        tried = try_mapping(str(tmp_path / "a.csv"), str(tmp_path / "proposed.yaml"))
        assert tried.rows_loaded == 2
    nameless = csv(",,ts", f"5,6,{TIME}", f"5,7,{TIME}")
    with pytest.raises(SourceError, match=r"has 2 columns without a name\. Name"):
        inspected(tmp_path, "a.csv", nameless)


ROWS = csv("session_id;item_id;ts", f"1;2;{TIME}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"sep=;\r\n" + ROWS, "begins with `sep=`, a line for Excel alone. Delete this line"),
        (b"\xef\xbb\xbfsep=;\n" + ROWS, "begins with `sep=`"),
        (b"<!DOCTYPE html>\n<html></html>\n", "is a web page or XML"),
        (b'<?xml version="1.0"?>\n<a/>\n', "is a web page or XML"),
        (b"PK\x03\x04\0\0" + ROWS, "is a zip archive, or an Excel workbook. Unpack it"),
        (gzip.compress(ROWS), r"is a gzip file. Let its name end in \.csv\.gz"),
        (ROWS.decode().encode("utf-16"), "is UTF-16 or binary"),
    ],
)
def test_what_is_no_csv_is_refused_with_what_it_is(tmp_path: Path, content: bytes, message: str):
    with pytest.raises(SourceError, match=message):
        inspected(tmp_path, "a.csv", content)


@pytest.mark.parametrize(
    ("names_of_both", "day", "clock"),
    [
        ("date,time", "2025-11-24", "16:00:15"),
        ("Datum,Uhrzeit", "24.11.2025", "16:00"),
        ("day,hour", "11/24/2025", "4:00 PM"),
    ],
)
def test_a_day_and_its_clock_belong_together(tmp_path, names_of_both, day, clock):
    header = f"session_id,item_id,{names_of_both}"
    seen = inspected(tmp_path, "a.csv", csv(header, f"1,2,{day},{clock}", f"1,3,{day},{clock}"))
    first, second = names_of_both.split(",")
    sentence = f"{first} has the day, and {second} the time of day: the two belong together."
    assert sentence in seen.report
    assert sentence in comments(seen)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("yoochoose-buys.csv", "The file's name speaks for orders."),
        ("clicks-and-carts.csv", "Each row becomes one of the type that you choose."),
        ("export.csv", "Each row becomes one of the type that you choose."),
        ("2025_Page_Views.csv", ""),
    ],
)
def test_what_happened_is_asked_where_nothing_says_it(tmp_path: Path, name: str, sentence: str):
    seen = inspected(tmp_path, name, csv("session_id,item_id,ts", f"1,2,{TIME}"))
    assert seen.choices == (("type",) if sentence else ())
    assert sentence in seen.report
    assert f"constant: {'CHOOSE' if sentence else 'clicks'}" in comments(seen)


def test_duplicates_are_counted_apart_from_what_is_loaded(tmp_path: Path):
    rows = [f"1,{n % 2},{TIME},view" for n in range(6)]
    seen = inspected(tmp_path, "a.csv", csv("session_id,item_id,ts,event", *rows))
    assert "2 events of 1 session, 2.0 each and 2 at most" in seen.report
    assert "Duplicates of these, which are not loaded: 4." in seen.report
    assert (seen.rows, seen.rows_loaded) == (6, 2)


def test_the_example_of_a_time_without_a_zone_has_none(tmp_path: Path):
    rows = [f"1,{n},2025-11-24T16:00:1{n}{'' if n else 'Z'},view" for n in range(5)]
    seen = inspected(tmp_path, "a.csv", csv("session_id,item_id,ts,event", *rows))
    assert "2025-11-24T16:00:11 does not say its time zone" in comments(seen)


def test_nothing_is_announced_where_nothing_can_be_offered(tmp_path: Path):
    rows = [
        {"event_timestamp": TIME * 1000 + n, "user_pseudo_id": "8.5"}
        | {"event_name": ("view_item", "purchase")[n % 2]}
        | {"items": [{"item_id": f"SKU{n}"}], "device": {"category": ("mobile", "tv")[n % 2]}}
        | {"event_params": [{"key": "ga_session_id", "value": {"int_value": "8"}}]}
        for n in range(30)
    ]
    asked = inspected(tmp_path, "a.jsonl", json_lines(*rows))
    assert "aid: device.category" in comments(asked)
    assert "These could, by their values:" in comments(asked)
    for row in rows:
        del row["device"]
    seen = inspected(tmp_path, "b.jsonl", json_lines(*rows))
    assert "These could, by their values:" not in comments(seen)
    assert "Neither names nor values say which column has the article." in comments(seen)
    assert "It may be in items or event_params" in comments(seen)


@pytest.mark.parametrize("delimiter", ",;|\t")
@pytest.mark.parametrize(
    "title", ["# Report: shop\n# Date, 2025\n\n", "Report of the shop\n", "\n"]
)
def test_lines_before_the_header_are_to_be_deleted(tmp_path: Path, title: str, delimiter: str):
    rows = ["session_id,item_id,ts,event", *(f"1,{n},{TIME},view" for n in range(5))]
    content = title.encode() + csv(*rows).replace(b",", delimiter.encode())
    with pytest.raises(SourceError, match=r"most lines have 4 values: that is no header\. Delete"):
        inspected(tmp_path, "a.csv", content)


def test_a_header_may_begin_with_a_number_sign(tmp_path: Path):
    rows = [f"1;{n};{TIME};view;a,b,c,d,e,f,g" for n in range(3)]
    seen = inspected(tmp_path, "a.csv", csv("#session_id;item_id;ts;event;note", *rows))
    assert (seen.choices, seen.rows_loaded) == ((), 3)
