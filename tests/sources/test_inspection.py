"""What `make inspect` proposes loads each shape, after somebody has chosen where it asks."""

import gzip
import re
import sys
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import polars as pl
import pyarrow.parquet as pq
import pytest

from kreislauf import lake, sources
from kreislauf.inspection import look as inspection
from kreislauf.inspection import sample
from kreislauf.inspection.__main__ import main
from kreislauf.inspection.look import look
from kreislauf.sources import SourceError
from models import mapping as mappings
from models import spec
from models.mapping import MappingError
from models.session_recommender.schema import EVENTS
from tests.conftest import ROOT
from tests.sources.test_shapes import SHAPES, TIME, Shape, csv, json_lines, write


@dataclass(frozen=True)
class Chosen:
    """What somebody chooses in a proposal."""

    asked: tuple[str, ...]
    """Columns of the table of which it has to ask something."""
    values: dict[str, str] = field(default_factory=dict)
    """Value in the place of CHOOSE by key; empty for a line that is deleted."""


CHOSEN = {
    "retailrocket.csv": Chosen(("type",), {"wishlist": ""}),
    "yoochoose-clicks.csv": Chosen(("session", "aid"), {"session": "column_1", "aid": "column_3"}),
    "shopify-orders.csv": Chosen(("type",), {"constant": "orders"}),
    "german-excel.csv": Chosen(("ts", "type"), {"zone": "Europe/Berlin", "constant": "clicks"}),
    "clock-change.csv": Chosen(
        ("session", "aid", "ts", "type"),
        {"session": "s", "aid": "a", "zone": "Europe/Berlin", "constant": "clicks"},
    ),
    "no-offset.csv": Chosen(
        ("session", "aid", "ts", "type"),
        {"session": "s", "aid": "a", "zone": "", "constant": "clicks"},
    ),
    "matomo.jsonl": Chosen(("type",), {"constant": "clicks"}),
    "segment-track.json.gz": Chosen(("aid",), {"aid": "properties.product_id"}),
    "kaggle-radek.parquet": Chosen(("type",), {"'0'": "clicks", "'2'": "orders"}),
    "unsigned.parquet": Chosen(("ts",), {"zone": "UTC"}),
}
"""Shapes that can be read in several ways."""


AS_TEXT = {
    "wrong-values.csv": [("1", "12x"), ("1", "1.5"), ("1", "99999999999999999999"), ("1", "13")],
    "unsigned.parquet": [("1", "5"), ("18446744073709551615", "6")],
}
"""Shapes whose ids are taken as text, because many are no whole numbers that int64 holds: session
and article of each row."""
OWN_COLUMNS = "columns: {session: session, aid: aid, type: type, ts: {from: ts, unit: ms}}"


def choose(text: str, chosen: Chosen) -> str:
    """The proposal as somebody leaves it who does what its comments say."""
    for key, value in chosen.values.items():
        line = rf"^( +){re.escape(key)}: CHOOSE.*\n"
        assert re.search(line, text, re.M), key
        text = re.sub(line, rf"\1{key}: {value}\n" if value else "", text, flags=re.M)
        text = re.sub(rf"^  - {re.escape(value)} +# delete this line.*\n", "", text, flags=re.M)
    return text


def read_back(text: str, folder: Path) -> mappings.Mapping:
    path = folder / "proposed.yaml"
    path.write_text(text)
    _, mapping = mappings.find(str(path), None)
    assert mapping is not None
    return mapping


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_the_proposal_for_a_shape_loads_it(shape: Shape, tmp_path: Path):
    path = tmp_path / shape.name
    write(shape, path)
    chosen = CHOSEN.get(shape.name, Chosen(()))
    seen = look(str(path))
    assert seen.choices == chosen.asked
    mapping = None
    if seen.mapping is None:
        assert shape.mapping in ("", OWN_COLUMNS)
        assert "No mapping is needed" in seen.report or "needs no mapping" in seen.report
    else:
        text = seen.mapping
        if chosen.asked:
            with pytest.raises(
                MappingError, match=r"waits for your choice in line \d+, `columns\."
            ):
                read_back(text, tmp_path)
            text = choose(text, chosen)
        mapping = read_back(text, tmp_path)
        assert (mapping.model or spec.DEFAULT) == seen.model
    table = spec.load(seen.model).table
    accounts = lake.load_file(table, sources.open_file(str(path), table, mapping))
    rows = lake.read(table).select("session", "aid", "ts", "type").rows()
    expected: list[tuple] = shape.rows
    rejected = len(shape.rejected)
    if shape.name in AS_TEXT:
        assert seen.model == "session_recommender_text"
        expected = [(*ids, *shape.rows[0][2:]) for ids in AS_TEXT[shape.name]]
        rejected += len(shape.rows) - len(expected)
    assert sorted(rows) == sorted(expected)
    assert (accounts.lines_rejected, accounts.lines_left_out) == (rejected, shape.left_out)
    if not chosen.asked:
        assert (seen.rows_loaded, seen.rows_rejected) == (len(expected), rejected)


def inspected(tmp_path: Path, name: str, content) -> inspection.Inspection:
    """What is said of a file with this content."""
    write(Shape(name, content, "", []), tmp_path / name)
    return look(str(tmp_path / name))


DAYS = csv("visit;item;at", "1;5;03/04/2023 10:00", "1;6;03/04/2023 10:05", "2;5;12/11/2023 09:00")


def test_it_is_asked_whether_day_or_month_comes_first_until_a_day_says_so(tmp_path: Path):
    seen = inspected(tmp_path, "clicks.csv", DAYS)
    assert seen.choices == ("ts",)
    assert (
        "'%d/%m/%Y %H:%M' (then 03/04/2023 10:00 is 2023-04-03 10:00:00; fits 100%" in seen.mapping
    )
    assert (
        "'%m/%d/%Y %H:%M' (then 03/04/2023 10:00 is 2023-03-04 10:00:00; fits 100%" in seen.mapping
    )
    with pytest.raises(
        MappingError, match=r"line \d+, `columns.ts.format`; line \d+, `columns.ts.z"
    ):
        read_back(seen.mapping, tmp_path)
    chosen = Chosen((), {"format": "'%m/%d/%Y %H:%M'", "zone": "America/New_York"})
    mapping = read_back(choose(seen.mapping, chosen), tmp_path)
    lake.load_file(EVENTS, sources.open_file(str(tmp_path / "clicks.csv"), EVENTS, mapping))
    first = datetime(2023, 3, 4, 10, tzinfo=ZoneInfo("America/New_York")).timestamp() * 1000
    assert lake.read(EVENTS)["ts"].min() == first
    sure = inspected(tmp_path, "clicks-2.csv", DAYS + b"3;7;28/02/2023 10:00\n")
    assert "format: '%d/%m/%Y %H:%M'" in sure.mapping


def test_it_is_asked_whether_times_are_seconds_or_ms_if_both_occur(tmp_path: Path):
    rows = [{"session": 1, "sku": n, "time": TIME // (1 + 999 * (n % 2))} for n in range(10)]
    seen = inspected(tmp_path, "clicks.jsonl", json_lines(*rows))
    assert seen.choices == ("ts",)
    assert f"s (then {TIME // 1000} is 2022-08-29 12:30:15; fits 50% of the rows)" in seen.mapping
    assert f"ms (then {TIME} is 2022-08-29 12:30:15; fits 50% of the rows)" in seen.mapping
    assert (seen.rows_loaded, seen.rows_rejected) == (5, 5)
    in_s = inspected(tmp_path, "clicks-2.jsonl", json_lines(*rows[1::2]))
    assert "ts: {from: time, unit: s}" in in_s.mapping


@pytest.mark.parametrize(
    ("rows", "choices", "sentence"),
    [
        ({"user_id": 1, "anonymous_id": 2, "sku": 3}, ("session",), "session: anonymous_id"),
        ({"session_id": 1, "sku": 3, "product_id": 4}, ("aid",), "aid: product_id"),
        ({"session_id": 1, "sku": "A-1"}, (), "sku has ids that are no whole numbers"),
        (
            {"session_id": 1, "sku": "007"},
            (),
            "begin with 0, such as 007, and would lose it as numbers. So ids are taken as text",
        ),
        ({"session_id": -4, "sku": 7}, (), "model: session_recommender_text # which takes any ids"),
        ({"user_id": 1, "sku": 7}, (), "user_id looks like a user, not a session"),
        ({"sku": 7}, ("session",), "Neither names nor values say which column has the session"),
        (
            {"session_id": 1, "items": [1]},
            ("aid",),
            "It may be in items, in which a mapping cannot",
        ),
        ({"session_id": 1, "sku": 7, "action": "wishlist"}, ("type",), "wishlist: CHOOSE"),
        ({"session_id": 1, "sku": 7, "type": "0"}, ("type",), "'0': CHOOSE"),
        ({"session_id": 1, "sku": 7, "order_id": 4}, ("type",), "constant: CHOOSE"),
        ({"session_id": 1, "sku": 7}, (), "The file's name says clicks: each row becomes one."),
    ],
)
def test_what_is_doubtful_is_said_in_the_mapping(tmp_path, rows, choices, sentence):
    lines = [rows | {"timestamp": TIME + n} for n in range(30)]
    seen = inspected(tmp_path, "product-views.jsonl", json_lines(*lines))
    assert seen.choices == choices
    assert sentence.replace("# ", "") in " ".join(seen.mapping.replace("#", "").split())


def test_events_without_an_article_are_left_out_and_named(tmp_path: Path):
    kinds = {"Product Viewed": 7, "Order Completed": None, "Newsletter": None}
    lines = [
        {"sid": 1, "product_id": article, "event": event, "ts": TIME + n}
        for n in range(3)
        for event, article in kinds.items()
    ]
    seen = inspected(tmp_path, "a.jsonl", json_lines(*lines))
    mapping = read_back(seen.mapping, tmp_path)
    assert mapping.only == {"event": ["Product Viewed"]}
    assert (seen.rows_loaded, seen.rows_rejected) == (3, 0)
    assert "Newsletter (3), Order Completed (3)" in " ".join(seen.mapping.replace("#", "").split())
    assert "Order Completed looks like one of the orders, but none of its rows" in seen.report


def test_the_report_says_what_is_there_and_what_would_be_rejected(tmp_path: Path):
    hour = 3_600_000
    rows = [f"1,5,{TIME},view", f"1,5,{TIME},view", f"2,6,{TIME + 13 * hour},view"]
    rows += [f"2,undefined,{TIME},view", f"2,7,{TIME},cart"]
    report = inspected(
        tmp_path, "a.csv", csv("sid,item,ts,event,note", *(row + ",x" for row in rows))
    ).report
    for part in (
        "1 file. CSV, its values separated by commas. Rows looked at: 5, all.",
        "| item   | text          | 100%   | 4         | 5, 6, undefined",
        "| 1   | 5         | 1661776215250 | view  |",
        "| 1       | 5   | 1661776215250 | clicks | 2022-08-29 12:30:15 |",
        "3 events of 2 sessions, 1.5 each and 2 at most; 3 articles; from 2022-08-29 12:30:15 to "
        "2022-08-30 01:30:15 UTC; 2 clicks, 1 carts.",
        "Duplicates of these, which are not loaded: 1.",
        "- item has 'undefined' or the like for no value, in 20.0% of the rows.",
        "- 1 of 2 sessions pause for more than 12 hours",
        "## What would be rejected: 1 of 5",
        "- 1: Expected `item` to be a whole number, got 'undefined'",
        "refuses a file of which more than 10% of the lines are rejected",
        "note   # always x",
    ):
        assert part in report


def test_only_the_beginning_of_some_files_is_looked_at(tmp_path: Path):
    rows = [f"{n},{n % 97},{TIME + n},clicks" for n in range(30_000)]
    for number in range(12):
        write(Shape("", csv("session,aid,ts,type", *rows), "", []), tmp_path / f"{number:02}.csv")
    seen = look(str(tmp_path))
    assert seen.rows == sample.ROWS
    assert "12 files." in seen.report
    assert "Rows looked at: 100,000, only the beginning of 5 of them." in seen.report
    assert sample.take(str(tmp_path), EVENTS).paths == [
        str(tmp_path / f"{number:02}.csv") for number in (0, 3, 6, 8, 11)
    ]


def test_long_lines_end_a_sample_early(tmp_path: Path, monkeypatch):
    row = {"session": 1, "aid": 2, "ts": TIME, "type": "clicks", "note": "x" * 100_000}
    content = json_lines(*[row] * 120)
    monkeypatch.setattr(sample, "BYTES", 1)
    seen = inspected(tmp_path, "a.jsonl", content)
    assert 0 < seen.rows < 60
    assert "only the beginning" in seen.report
    monkeypatch.setattr(sample, "BYTES", len(content))
    assert look(str(tmp_path / "a.jsonl")).rows == 120


def test_files_with_other_columns_are_named(tmp_path: Path):
    write(Shape("", csv("session,aid,ts,type", f"1,2,{TIME},clicks"), "", []), tmp_path / "a.csv")
    write(Shape("", csv("order,sku", "1,2"), "", []), tmp_path / "b.csv")
    write(Shape("", json_lines({"a": 1}), "", []), tmp_path / "c.jsonl")
    (tmp_path / "notes.txt").write_text("x")
    seen = look(str(tmp_path))
    assert f"a.csv: {tmp_path}/b.csv, {tmp_path}/c.jsonl. A mapping is for" in seen.report
    assert f"Left alone, because of their endings: {tmp_path}/notes.txt." in seen.report
    assert (seen.rows, seen.rows_loaded) == (1, 1)


def test_an_empty_part_and_another_order_of_columns_do_not_matter(tmp_path: Path):
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b""))
    write(Shape("", csv("visit,item,time", f"1,2,{TIME}"), "", []), tmp_path / "b.csv")
    write(Shape("", csv("time,visit,item", f"{TIME},1,3"), "", []), tmp_path / "c.csv")
    seen = look(str(tmp_path))
    assert (seen.rows, seen.rows_loaded) == (2, 2)
    assert "A mapping is for" not in seen.report
    nothing = inspected(tmp_path / "empty", "a.jsonl.gz", gzip.compress(b""))
    assert (nothing.mapping, nothing.rows) == (None, 0)
    assert "There is nothing to propose from." in nothing.report


def test_values_with_blanks_around_them_are_wanted_as_they_are(tmp_path: Path):
    rows = [f"1,7,{TIME}, view", f"1,,{TIME},login", f"1,8,{TIME},view"]
    seen = inspected(tmp_path, "a.csv", csv("visit,item,time,event", *rows))
    assert read_back(seen.mapping, tmp_path).only == {"event": [" view", "view"]}
    assert (seen.rows_loaded, seen.rows_rejected) == (2, 0)


def test_the_page_shows_what_is_really_proposed(tmp_path: Path, monkeypatch):
    page = (ROOT / "docs" / "data.md").read_text().split("## Look first")[1]
    blocks = re.findall(r"```(\w*)\n(.*?)```", page.split("\n## ")[0], re.S)
    (_, content), (_, command), (_, mapping), (_, refusal) = blocks
    monkeypatch.chdir(tmp_path)
    Path("events.csv").write_text(content)
    assert command.split() == ["make", "inspect", "DATA=events.csv", "OUT=shop.yaml"]
    look("events.csv", out="shop.yaml")
    assert Path("shop.yaml").read_text() == mapping
    with pytest.raises(MappingError) as caught:
        mappings.find("shop.yaml", None)
    assert str(caught.value) == refusal.strip()


def test_a_large_parquet_file_is_not_read_to_its_end(tmp_path: Path):
    rows = 400_000
    frame = pl.DataFrame({"session": range(rows), "aid": range(rows), "ts": [TIME] * rows})
    frame = frame.with_columns(type=pl.lit("clicks"))
    path = tmp_path / "a.parquet"
    pq.write_table(frame.to_arrow(), path, row_group_size=20_000, write_page_checksum=True)
    file = sources.open_file(str(tmp_path / "a.parquet"), EVENTS)
    whole = list(file.chunks())
    head = file.head()
    first = next(head)
    head.close()
    assert first.frame.equals(whole[0].frame)
    assert sum(map(len, whole)) == rows > len(first)
    with path.open("r+b") as broken:
        broken.seek(path.stat().st_size // 2)
        broken.write(b"\0" * 100_000)
    with pytest.raises(SourceError, match="not a sound Parquet file"):
        list(sources.open_file(str(tmp_path / "a.parquet"), EVENTS).chunks())
    assert look(str(tmp_path / "a.parquet")).rows_loaded == sample.ROWS


def test_a_source_on_s3_is_looked_at(s3):
    for number in range(3):
        with s3.open(f"shop/raw/type=clicks/{number}.csv.gz", "wb") as file:
            row = f"7,{number},{TIME},view"
            file.write(gzip.compress(csv("visitorid,itemid,timestamp,event", row)))
    seen = look("s3://shop/raw/")
    assert (seen.rows, seen.rows_loaded, seen.choices) == (3, 3, ())
    assert "session: visitorid" in seen.mapping
    with s3.open("shop/hive/type=carts/0.parquet", "wb") as file:
        pl.DataFrame({"session": [1], "aid": [2], "ts": [TIME]}).write_parquet(file)
    assert look("s3://shop/hive/").rows_loaded == 1


def test_sessions_with_their_events_need_no_mapping_and_none_helps(tmp_path: Path):
    events = [{"aid": 1, "ts": TIME, "type": "clicks"}, {"aid": 2, "ts": TIME, "type": "carts"}]
    good = inspected(tmp_path, "a.jsonl", json_lines({"session": 1, "events": events}))
    assert (good.mapping, good.rows_loaded) == (None, 2)
    assert "Kreislauf's own format, which needs no mapping" in good.report
    in_s = [{"aid": 1, "ts": TIME // 1000, "type": "clicks"}]
    bad = inspected(tmp_path, "b.jsonl", json_lines({"session": 1, "events": in_s}))
    assert (bad.mapping, bad.rows_loaded, bad.rows_rejected) == (None, 0, 1)
    assert "A mapping cannot help" in bad.report


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("17_flat_jsonl/flat.jsonl", ((), 40, 0)),
        ("18_aid_float", ((), 40, 0)),
        ("18_aid_float_null", ((), 39, 1)),
        ("18_hive", ((), 40, 0)),
        ("18_kaggle_radek", (("type",), 40, 0)),
        ("18_pandas_index", ((), 34, 0)),
        ("18_ts_ms", (("ts",), 40, 0)),
        ("18_ts_us_tz", ((), 40, 0)),
        ("19_left_alone", ((), 32, 0)),
        ("20_string_ids/sku.jsonl", ((), 90, 0)),
        ("20_string_ids/uuid.jsonl", ((), 120, 0)),
        ("26_empty_parts", ((), 8, 0)),
        ("27_small_broken/seconds.jsonl", ((), 0, 10)),
        ("own_csv", ((), 2, 0)),
    ],
)
def test_files_that_did_not_do_what_they_should(name: str, expected: tuple, shared: Path):
    folder = shared.parent / "cases" / "data"
    if not folder.is_dir():
        pytest.skip(f"no cases in {folder}")
    seen = look(str(folder / name))
    assert (seen.choices, seen.rows_loaded, seen.rows_rejected) == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'[{"session": 1}]', "Not a single line .* it looks like a JSON array: write each"),
        (b"session,aid\n1,2\n", "it looks like CSV, whose name has to end in .csv"),
        (gzip.compress(b"{}", mtime=0), "it looks like a gzip file: its name has to end in .gz"),
        ("{}".encode("utf-16"), "it looks like UTF-16 text: convert it"),
    ],
)
def test_a_file_of_another_kind_is_refused_with_what_it_looks_like(tmp_path, content, message):
    with pytest.raises(SourceError, match=message):
        inspected(tmp_path, "a.jsonl", content)


def test_a_broken_file_among_others_is_named(tmp_path: Path):
    write(Shape("", csv("session,aid,ts,type", f"1,2,{TIME},clicks"), "", []), tmp_path / "a.csv")
    (tmp_path / "b.csv").write_bytes("session".encode("utf-16"))
    seen = look(str(tmp_path))
    assert seen.rows_loaded == 1
    assert f"Cannot be read: {tmp_path}/b.csv is UTF-16 or binary" in seen.report


def test_a_model_type_with_another_table_is_refused(tmp_path: Path, wordy: str):
    write(Shape("", csv("session", "1"), "", []), tmp_path / "a.csv")
    with pytest.raises(ValueError, match=r"A mapping is proposed for the columns aid, session"):
        look(str(tmp_path / "a.csv"), wordy)


def test_a_few_broken_ids_are_no_text(tmp_path: Path):
    rows = [f"{n},{n % 9},{TIME + n}" for n in range(30)]
    broken = csv("visit,sku,time", *rows, f"x,7,{TIME}", f"31,undefined,{TIME}")
    seen = inspected(tmp_path, "a.csv", broken)
    assert (seen.model, seen.rows_loaded, seen.rows_rejected) == (spec.DEFAULT, 30, 2)
    assert (
        "1 of 32 values of visit are no whole numbers from 0 to 2^63-1, such as x: their"
        in seen.report
    )
    as_text = look(str(tmp_path / "a.csv"), "session_recommender_text")
    assert (as_text.rows_loaded, as_text.rows_rejected) == (32, 0)
    assert "model: session_recommender_text" in as_text.mapping


def test_no_mapping_is_written_where_none_is_needed(tmp_path: Path):
    write(Shape("", csv("session,aid,ts,type", f"1,2,{TIME},clicks"), "", []), tmp_path / "a.csv")
    seen = look(str(tmp_path), out=str(tmp_path / "shop.yaml"))
    assert f"So {tmp_path}/shop.yaml is not written." in seen.report
    assert not (tmp_path / "shop.yaml").exists()


def test_the_command_writes_the_mapping_once(tmp_path, monkeypatch, capsys):
    write(SHAPES[0], tmp_path / "events.csv")
    out = tmp_path / "shop.yaml"
    command = ["inspect", str(tmp_path / "events.csv"), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", command)
    main()
    shown = capsys.readouterr().out
    assert out.read_text() in shown
    assert f"It is in {out}. It is refused until" in shown
    out.write_text("mine")
    with pytest.raises(SystemExit, match=r"shop.yaml exists already, and is not overwritten"):
        main()
    assert out.read_text() == "mine"
    monkeypatch.setattr(sys, "argv", ["inspect", str(tmp_path / "nowhere.csv")])
    with pytest.raises(SystemExit, match=r"nowhere.csv does not exist"):
        main()


BY_GAP = """
model: session_recommender_text
columns:
  session: {user: visitor, gap_minutes: 30}
  aid: item
  ts: {from: time, unit: ms}
  type: {from: what, values: {view: clicks}}
ignored: [note]
"""


def test_a_mapping_is_tried_before_anything_is_loaded(tmp_path, monkeypatch, capsys):
    rows = [f"ada,A-{n},{TIME + n * 1_000_000},view," for n in (0, 1, 2, 4)]
    content = csv("visitor,item,time,what,note", *rows, f"bo,A-1,{TIME},wishlist,")
    (tmp_path / "a.csv").write_bytes(content)
    mapping = tmp_path / "shop.yaml"
    mapping.write_text(BY_GAP)
    tried = inspection.try_mapping(str(tmp_path / "a.csv"), str(mapping))
    assert (tried.model, tried.rows_loaded, tried.rows_rejected) == (
        "session_recommender_text",
        4,
        1,
    )
    assert "4 events of 2 sessions, 2.0 each and 3 at most" in tried.report
    assert "- 1: Expected `what` to be one of view, got 'wishlist'" in tried.report
    assert f'Load it with `ingest("{tmp_path}/a.csv", mapping="{mapping}")`.' in tried.report
    monkeypatch.setattr(sys, "argv", ["", str(tmp_path / "a.csv"), "--mapping", str(mapping)])
    main()
    assert tried.report in capsys.readouterr().out
    mapping.write_text(BY_GAP.replace("[note]", "[]"))
    with pytest.raises(SystemExit, match="the mapping does not mention: note"):
        main()
    mapping.write_text(BY_GAP.replace("what, values", "item, values"))
    with pytest.raises(SystemExit, match="the mapping does not mention: what"):
        main()
    mapping.write_text(BY_GAP.replace("unit: ms", "unit: CHOOSE"))
    with pytest.raises(SystemExit, match="waits for your choice in line 6"):
        main()
    mapping.write_text(BY_GAP.replace("unit: ms", "unit: ns"))
    nothing = inspection.try_mapping(str(tmp_path / "a.csv"), str(mapping))
    assert (nothing.rows_loaded, nothing.rows_rejected) == (0, 5)
    assert f"Nothing would be loaded. Mend {mapping}, and look again." in nothing.report
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--out", "x.yaml"])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "say OUT for a proposal, or MAPPING to try a mapping" in capsys.readouterr().err
