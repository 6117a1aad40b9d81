import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import sha256

import pandera.polars as pa
import polars as pl
import pytest
from deltalake import DeltaTable
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pandera.config import config_context
from pandera.errors import SchemaErrors
from pydantic import ValidationError

from models.session_recommender.schema import EVENTS, Event
from tasks import lake

T0 = 1_700_000_000_000
ROW = {"session": pl.Int64, "aid": pl.Int64, "ts": pl.Int64, "type": pl.String}


def line(session, *events):
    """A session in OTTO's format; an event is (aid, seconds after T0) or (aid, seconds, type)."""
    shaped = [{"aid": e[0], "ts": T0 + 1000 * e[1], "type": e[2] if e[2:] else "clicks"} for e in events]
    return json.dumps({"session": session, "events": shaped}).encode()


def load(lines, source="shop/a.jsonl", table=EVENTS):
    return lake.load(table, source, sha256(b"\n".join(lines)).hexdigest(), lines)


def rows():
    return lake.read(EVENTS).rows()


def log_versions(name="events"):
    return DeltaTable(lake._uri(name), storage_options=lake._options(lake._uri(name))).version()


GOOD = [line(1, (10, 0), (11, 5, "carts")), line(2, (10, 1))]
GOOD_ROWS = [(1, 10, T0, "clicks"), (1, 11, T0 + 5000, "carts"), (2, 10, T0 + 1000, "clicks")]

EVENT = b'{"session":7,"events":[{"aid":%s,"ts":%s,"type":%s}]}'
BAD = {
    "not JSON": (b"this is not JSON", "JSON is malformed", 1),
    "cut off": (GOOD[0][:-9], "truncated", 1),
    "two objects": (GOOD[0] + GOOD[1], "trailing characters", 1),
    "array": (b"[1,2]", "Expected `object`, got `array`", 1),
    "null": (b"null", "Expected `object`, got `null`", 1),
    "NUL bytes": (b"\0\0\0", "JSON is malformed", 1),
    "nested deeply": (b'{"x":' + b"[" * 100_000, "nested too deeply", 1),
    "invalid UTF-8": (b'{"session":\xff}', "Invalid UTF-8: invalid start byte (byte 11)", 1),
    "invalid UTF-8 in an unknown field": (GOOD[0][:-1] + b',"x":"\xc3\x28"}', "Invalid UTF-8", 1),
    "UTF-16": ("{}".encode("utf-16"), "Invalid UTF-8", 1),
    "negative session": (line(-1, (10, 0)), "Expected `int` >= 0 - at `$.session`", 1),
    "negative aid": (line(7, (10, 0), (-1, 0)), "Expected `int` >= 0 - at `$.events[1].aid`", 1),
    "int overflow": (EVENT % (b"9223372036854775808", b"1", b'"clicks"'), "Expected `int` <= 9223372036854775807", 1),
    "huge int": (EVENT % (b"9" * 400, b"1", b'"clicks"'), "", 1),
    "float": (EVENT % (b"1.5", b"1", b'"clicks"'), "Expected `int`, got `float` - at `$.events[0].aid`", 1),
    "whole float": (EVENT % (b"1.0", b"1", b'"clicks"'), "Expected `int`, got `float`", 1),
    "bool": (EVENT % (b"true", b"1", b'"clicks"'), "Expected `int`, got `bool` - at `$.events[0].aid`", 1),
    "string": (EVENT % (b'"1"', b"1", b'"clicks"'), "Expected `int`, got `str` - at `$.events[0].aid`", 1),
    "NaN": (EVENT % (b"NaN", b"1", b'"clicks"'), "JSON is malformed", 1),
    "unknown type": (line(7, (10, 0, "views")), "Invalid enum value 'views' - at `$.events[0].type`", 1),
    "type is null": (EVENT % (b"1", b"1", b"null"), "Expected `str`, got `null` - at `$.events[0].type`", 1),
    "missing events": (b'{"session":7}', "missing required field `events`", 1),
    "missing aid": (b'{"session":7,"events":[{"ts":1,"type":"clicks"}]}', "missing required field `aid`", 1),
    "no events": (line(7), "Expected `array` of length >= 1 - at `$.events`", 1),
    "ts too early": (
        line(7, (1, 0), (2, -T0 // 1000)),
        "Expected `ts` greater than or equal to 946684800000",
        2,
    ),
    "ts in the future": (EVENT % (b"1", b"3999999999999", b'"clicks"'), "Expected `ts` not to lie in the future", 1),
    "ts too late": (EVENT % (b"1", b"9999999999999", b'"clicks"'), "Expected `ts` less than 4102444800000", 1),
    "ts in seconds": (EVENT % (b"1", b"1700000000", b'"clicks"'), "Expected `ts` greater than or equal to", 1),
    "bad with CR": (b"oops\r", "JSON is malformed", 1),
    "bad with BOM": (b"\xef\xbb\xbfoops", "JSON is malformed", 1),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_line_is_kept_as_it_came_with_a_reason_and_its_neighbours_load(name):
    bad, reason, size = BAD[name]
    accounts = load([GOOD[0], bad, GOOD[1]])
    assert rows() == GOOD_ROWS
    (reject,) = lake.rejects(EVENTS).to_dicts()
    assert reject["raw"] == bad
    assert reason in reject["reason"]
    assert (reject["table"], reject["source"], reject["line"], reject["rows"]) == ("events", "shop/a.jsonl", 2, size)
    assert (accounts.lines_in, accounts.lines_loaded, accounts.lines_rejected) == (3, 2, 1)
    assert (accounts.rows_in, accounts.rows_kept, accounts.rows_rejected) == (3 + size, 3, size)


def test_all_bad_lines_at_once_keep_their_order_and_bytes():
    bad = [raw for raw, _, _ in BAD.values()]
    accounts = load(bad)
    stored = lake.rejects(EVENTS)
    assert stored["raw"].to_list() == bad
    assert stored["line"].to_list() == list(range(1, len(bad) + 1))
    assert (accounts.lines_loaded, accounts.lines_rejected, accounts.rows_kept) == (0, len(bad), 0)
    assert lake.read(EVENTS).is_empty()
    assert lake.watermark(EVENTS) is None
    again = load(bad)
    assert again == accounts.model_copy(update={"already_loaded": True})
    assert log_versions() == 1
    assert lake.rejects(EVENTS).height == len(bad)


def test_blank_lines_crlf_bom_and_unknown_fields_are_no_errors():
    extra = GOOD[1][:-1] + b', "shop": "\xc3\xbc"}'
    accounts = load([b"\xef\xbb\xbf" + GOOD[0] + b"\r", b"", b" \t\r", b"\xef\xbb\xbf", extra])
    assert rows() == GOOD_ROWS
    assert (accounts.lines_in, accounts.lines_loaded, accounts.lines_blank) == (5, 2, 3)
    assert lake.rejects(EVENTS).is_empty()


def test_file_of_blank_lines_is_recorded():
    assert load([b"", b""]).lines_blank == 2
    assert load([b"", b""]).already_loaded


def test_duplicates_within_a_file_and_across_files_are_counted_and_not_kept():
    first = load([GOOD[0], line(1, (10, 0), (12, 6)), line(3, (5, 5), (5, 5))])
    assert (first.rows_in, first.rows_kept, first.rows_duplicate) == (6, 4, 2)
    second = load([line(1, (10, 0), (13, 7)), *GOOD])
    assert (second.rows_in, second.rows_kept, second.rows_duplicate) == (5, 2, 3)
    assert len(rows()) == len(set(rows())) == 6


def test_duplicates_at_both_ends_of_the_time_range_are_found():
    load([line(1, (1, 0), (2, 5), (3, 9))])
    accounts = load([line(1, (1, 0), (4, 4), (3, 9))])
    assert (accounts.rows_kept, accounts.rows_duplicate) == (1, 2)


def test_events_that_differ_in_one_key_column_are_no_duplicates():
    load([line(1, (10, 0))])
    accounts = load([line(2, (10, 0)), line(1, (11, 0)), line(1, (10, 1)), line(1, (10, 0, "orders"))])
    assert (accounts.rows_kept, accounts.rows_duplicate) == (4, 0)


def test_same_file_twice_makes_no_new_version_and_returns_the_first_accounts():
    first = load([*GOOD, b"oops"])
    versions = log_versions(), log_versions("rejects")
    second = lake.load(EVENTS, "elsewhere/copy.jsonl", first.sha256, [*GOOD, b"oops"])
    assert second == first.model_copy(update={"already_loaded": True})
    assert (log_versions(), log_versions("rejects")) == versions == (1, 1)
    assert rows() == GOOD_ROWS


def test_accounts_are_in_the_commit_that_stores_the_rows():
    accounts = load(GOOD)
    (commit,) = DeltaTable(lake._uri("events")).history(1)
    assert commit["version"] == accounts.version == 1
    assert lake.Accounts.model_validate_json(commit["accounts"]) == accounts


def test_accounts_survive_checkpoints():
    files = [[line(n, (n, n))] for n in range(5)]
    accounts = [load(file) for file in files]
    delta = DeltaTable(lake._uri("events"))
    delta.create_checkpoint()
    delta.cleanup_metadata()
    load([line(9, (9, 9))])
    assert [load(file) for file in files] == [a.model_copy(update={"already_loaded": True}) for a in accounts]
    assert lake.read(EVENTS, version=1).rows() == [(0, 0, T0, "clicks")]
    assert lake.read(EVENTS).height == 6


def test_accounts_that_do_not_balance_cannot_exist():
    counts = load([*GOOD, b"oops", b""]).model_dump()
    for field in counts:
        if field.startswith(("lines_", "rows_")):
            with pytest.raises(ValidationError, match="do not balance"):
                lake.Accounts(**counts | {field: counts[field] + 1})


def crash_before_rows(monkeypatch, lines):
    def crash(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(lake, "_write_rows", crash)
        with pytest.raises(KeyboardInterrupt):
            load(lines)


def test_crash_between_the_two_commits_loses_and_doubles_nothing(monkeypatch):
    lines = [GOOD[0], b"oops", GOOD[1], b"\xff"]
    crash_before_rows(monkeypatch, lines)
    assert lake.rejects(EVENTS).height == 2
    assert lake.watermark(EVENTS) is None
    accounts = load(lines)
    assert not accounts.already_loaded
    assert rows() == GOOD_ROWS
    assert lake.rejects(EVENTS)["raw"].to_list() == [b"oops", b"\xff"]
    assert log_versions("rejects") == 1


@pytest.mark.parametrize("tolerant_first", [True, False])
def test_rules_that_change_after_a_crash_leave_the_rejects_of_the_load_that_counted(monkeypatch, tolerant_first):
    class Strict(Event):
        aid: pl.Int64 = pa.Field(ge=0, lt=11)

    lines = [b"oops", GOOD[0], GOOD[1]]
    other = [b"other file"]
    load(other, source="shop/other.jsonl")
    tables = [EVENTS, replace(EVENTS, schema=Strict)]
    before, after = tables if tolerant_first else reversed(tables)
    with monkeypatch.context() as patch:
        patch.setattr(lake, "_write_rows", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            load(lines, table=before)
    accounts = load(lines, table=after)
    expected = [b"oops", GOOD[0]] if tolerant_first else [b"oops"]
    assert lake.rejects(EVENTS, [accounts.sha256])["raw"].to_list() == expected
    assert lake.rejects(EVENTS)["raw"].to_list() == [*expected, *other]
    assert accounts.lines_rejected == len(expected)


def at_once(calls):
    barrier = threading.Barrier(len(calls))

    def run(call):
        barrier.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result() for future in [pool.submit(run, call) for call in calls]]


def race_on_one_file():
    lines = [*GOOD, b"oops"]
    results = at_once([lambda: load(lines)] * 6)
    assert sorted(r.already_loaded for r in results) == [False] + [True] * 5
    assert len({r.version for r in results}) == 1
    assert rows() == GOOD_ROWS
    assert lake.rejects(EVENTS)["raw"].to_list() == [b"oops"]


def race_on_overlapping_files():
    files = [[line(s, (s, 0)) for s in range(n, n + 4)] for n in range(6)]
    results = at_once([lambda f=f: load(f) for f in files])
    assert [row[0] for row in rows()] == list(range(9))
    assert sum(r.rows_kept for r in results) == 9
    assert sum(r.rows_duplicate for r in results) == 15
    assert len({r.version for r in results}) == 6


@pytest.mark.parametrize("attempt", range(10))
def test_only_one_of_several_writers_loads_a_file(attempt):
    race_on_one_file()


def test_writer_that_loses_the_creation_of_the_rejects_sees_what_the_winner_wrote(monkeypatch):
    lines = [*GOOD, b"oops"]
    create = lake._create

    def lose(name, schema):
        monkeypatch.setattr(lake, "_create", create)
        load(lines)
        return create(name, schema)

    monkeypatch.setattr(lake, "_create", lose)
    assert load(lines).already_loaded
    assert lake.rejects(EVENTS)["raw"].to_list() == [b"oops"]
    assert rows() == GOOD_ROWS


def test_writers_of_overlapping_files_keep_each_row_once():
    race_on_overlapping_files()


@pytest.fixture
def s3_lake(s3, monkeypatch):
    monkeypatch.setenv("KREISLAUF_LAKE", "s3://shop/lake/")


def test_lake_on_s3(s3_lake):
    assert lake.watermark(EVENTS) is None
    accounts = load([*GOOD, b"oops\xff", b""])
    assert load([*GOOD, b"oops\xff", b""]).already_loaded
    assert load([*GOOD, line(9, (9, 9))]).rows_duplicate == 3
    assert lake.read(EVENTS, version=accounts.version).rows() == GOOD_ROWS
    assert lake.read(EVENTS, start=T0 + 9000).rows() == [(9, 9, T0 + 9000, "clicks")]
    assert lake.watermark(EVENTS) == T0 + 9000
    assert lake.rejects(EVENTS)["raw"].to_list() == [b"oops\xff"]


def test_race_on_one_file_on_s3(s3_lake):
    race_on_one_file()


def test_race_on_overlapping_files_on_s3(s3_lake):
    race_on_overlapping_files()


def test_unreachable_lake_fails_within_seconds_in_one_sentence(s3_lake, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    start = time.monotonic()
    with pytest.raises(lake.LakeUnreachable, match=r"The lake at s3://shop/lake/events does not answer") as caught:
        load(GOOD)
    assert time.monotonic() - start < 12
    assert "\x1b" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_window_is_half_open_and_rows_are_sorted():
    load([line(2, (1, 3), (2, 1)), line(1, (9, 2), (8, 2), (1, 0))])
    whole = [(1, 1, 0), (1, 8, 2), (1, 9, 2), (2, 2, 1), (2, 1, 3)]
    assert [(s, a, (ts - T0) // 1000) for s, a, ts, _ in rows()] == whole
    window = lake.read(EVENTS, start=T0 + 1000, end=T0 + 3000)
    assert [(s, a) for s, a, _, _ in window.rows()] == [(1, 8), (1, 9), (2, 2)]
    assert window.schema == ROW
    Event.validate(window)


def test_version_and_watermark_follow_the_loads():
    assert lake.watermark(EVENTS) is None
    for n in (1, 2):
        load([line(n, (n, 10 * n))])
        assert (lake.version(EVENTS), lake.watermark(EVENTS)) == (n, T0 + 10_000 * n)
    load([line(3, (3, 0))])
    assert lake.watermark(EVENTS) == T0 + 20_000
    assert lake.read(EVENTS, version=1).height == 1


def test_missing_table_and_version_say_what_to_do():
    for function in (lake.read, lake.version):
        with pytest.raises(lake.LakeError, match=r"no table events in .* Ingest raw files first"):
            function(EVENTS)
    load(GOOD)
    with pytest.raises(lake.LakeError, match="Table events has no version 99; the newest is 1"):
        lake.read(EVENTS, version=99)


def test_validation_that_is_switched_off_around_it_still_applies():
    with config_context(validation_enabled=False):
        assert load([BAD["ts too late"][0]]).lines_rejected == 1


def test_model_type_whose_rows_and_rules_disagree_fails_instead_of_rejecting_lines():
    table = replace(EVENTS, unfold=lambda lines: EVENTS.unfold(lines).with_columns(pl.col("aid").cast(pl.Int32)))
    with pytest.raises(SchemaErrors):
        load(GOOD, table=table)
    assert lake.watermark(EVENTS) is None


def test_reasons_are_counted_without_positions():
    load([line(7, (1, 0), (-1, 0)), line(8, (-1, 0)), b'{"session":"\xff"}', b'{"session" :"\xff"}', line(9)])
    found = lake.reasons(lake.rejects(EVENTS))
    assert found[:2] == [
        ("Expected `int` >= 0 - at `$.events[...].aid`", 2),
        ("Invalid UTF-8: invalid start byte", 2),
    ]
    assert [count for _, count in found] == [2, 2, 1]


EVENT_DRAWS = st.tuples(
    st.sampled_from([0, 1, 2, 2, 2, -1]),
    st.sampled_from([0, 1, 2, 2, 2, -T0 // 1000]),
    st.sampled_from(["clicks", "clicks", "orders", "views"]),
)
LINE_DRAWS = st.one_of(
    st.builds(lambda s, e: line(s, *e), st.integers(0, 2), st.lists(EVENT_DRAWS, max_size=4)),
    st.sampled_from([b"", b"  \r", b"oops", b"\xff\xfe", b"{}", b"null"]),
    st.binary(max_size=12).filter(lambda b: b"\n" not in b),
)
FILES = st.lists(st.lists(LINE_DRAWS, min_size=1, max_size=12), min_size=1, max_size=3)


def reference_rows(raw):
    """Plain Python's verdict on a line: its rows, None if blank, or how many rows its rejection counts."""
    try:
        if not raw.decode().removeprefix("\ufeff").strip():
            return None
        parsed = json.loads(raw)
        found = [(parsed["session"], e["aid"], e["ts"], e["type"]) for e in parsed["events"]]
    except (ValueError, TypeError, KeyError):
        return 1
    if not found or any(aid < 0 or kind == "views" for _, aid, _, kind in found):
        return 1
    return len(found) if any(ts < 946_684_800_000 for _, _, ts, _ in found) else found


def reference_load(lines, kept):
    counts = dict.fromkeys(("loaded", "rejected", "blank", "kept", "rows_rejected", "duplicate"), 0)
    for raw in lines:
        verdict = reference_rows(raw)
        if verdict is None:
            counts["blank"] += 1
        elif isinstance(verdict, int):
            counts["rejected"] += 1
            counts["rows_rejected"] += verdict
        else:
            counts["loaded"] += 1
            for row in verdict:
                counts["duplicate" if row in kept else "kept"] += 1
                kept.add(row)
    return counts


@hypothesis_settings(max_examples=60, deadline=None, database=None)
@given(files=FILES)
def test_any_mixture_of_lines_balances_and_keeps_what_plain_python_keeps(tmp_path_factory, files):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KREISLAUF_HOME", str(tmp_path_factory.mktemp("lake")))
        kept, rejected, seen = set(), [], set()
        for lines in files:
            accounts = load(lines)
            assert accounts.already_loaded == (accounts.sha256 in seen)
            if accounts.sha256 in seen:
                continue
            seen.add(accounts.sha256)
            counts = reference_load(lines, kept)
            rejected += [raw for raw in lines if isinstance(reference_rows(raw), int)]
            assert accounts.lines_in == len(lines)
            assert {
                "loaded": accounts.lines_loaded,
                "rejected": accounts.lines_rejected,
                "blank": accounts.lines_blank,
                "kept": accounts.rows_kept,
                "rows_rejected": accounts.rows_rejected,
                "duplicate": accounts.rows_duplicate,
            } == counts
        assert len(rows()) == len(kept)
        assert set(rows()) == kept
        assert sorted(lake.rejects(EVENTS)["raw"]) == sorted(rejected)
