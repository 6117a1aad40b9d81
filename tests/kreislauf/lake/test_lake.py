import importlib
import json
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Literal

import msgspec
import pandera.polars as pa
import polars as pl
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pandera.config import config_context
from pydantic import ValidationError

from kreislauf import lake
from kreislauf.lake import data_files, decode, delta, intake, quarantine, staging, validate
from kreislauf.lake import storage as lake_storage
from models.session_recommender.schema import EVENT_TYPES, EVENTS, Event
from models.table import RawLines
from tests.conftest import ROOT

T0 = 1_700_000_000_000
ROW = {"session": pl.Int64, "aid": pl.Int64, "ts": pl.Int64, "type": pl.Enum(EVENT_TYPES)}


def line(session, *events):
    """A session in OTTO's format; an event is (aid, seconds after T0) or (aid, seconds, type)."""
    shaped = [
        {"aid": e[0], "ts": T0 + 1000 * e[1], "type": e[2] if e[2:] else "clicks"} for e in events
    ]
    return json.dumps({"session": session, "events": shaped}).encode()


@dataclass
class File:
    """A raw file that is not on a disk."""

    path: str
    lines: list[bytes]
    batch: int = 1_000_000
    mapping: None = None

    def __post_init__(self):
        self.sha256 = sha256(b"\n".join(self.lines)).hexdigest()
        self.stamp = f"{self.path}|{self.sha256}"

    def chunks(self):
        for first in range(0, len(self.lines), self.batch):
            lines = self.lines[first : first + self.batch]
            yield RawLines.of(self.path, lines, range(first + 1, first + 1 + len(lines)))


def load(lines, source="shop/a.jsonl", table=EVENTS, **options):
    return lake.load_file(table, File(source, lines), **options)


def rows():
    return lake.read(EVENTS).rows()


def log_versions(name="events"):
    return delta.find(name).version()


GOOD = [line(1, (10, 0), (11, 5, "carts")), line(2, (10, 1))]
GOOD_ROWS = [(1, 10, T0, "clicks"), (1, 11, T0 + 5000, "carts"), (2, 10, T0 + 1000, "clicks")]

EVENT = b'{"session":7,"events":[{"aid":%s,"ts":%s,"type":%s}]}'
FIRST = GOOD[0]
BAD = {
    "not JSON": (b"this is not JSON", "bad-json", "JSON is malformed", 1),
    "cut off in an event": (FIRST[:-9], "bad-json", "truncated", 1),
    "cut off after a comma": (FIRST[: FIRST.index(b"}, {") + 2], "bad-json", "truncated", 1),
    "one brace": (b"{", "bad-json", "truncated", 1),
    "two objects": (FIRST + GOOD[1], "bad-json", "trailing characters", 1),
    "object and comma": (FIRST + b",", "bad-json", "trailing characters", 1),
    "single quotes": (FIRST.replace(b'"', b"'"), "bad-json", "JSON is malformed", 1),
    "comma too many": (FIRST.replace(b"}]}", b"},]}"), "bad-json", "JSON is malformed", 1),
    "comma missing": (FIRST.replace(b"}, {", b"} {"), "bad-json", "JSON is malformed", 1),
    "comment": (FIRST + b" // from the shop", "bad-json", "trailing characters", 1),
    "HTML": (b"<html><body>502 Bad Gateway</body></html>", "bad-json", "JSON is malformed", 1),
    "CSV": (b"1,10,1700000000000,clicks", "wrong-type", "Expected `object`, got `int`", 1),
    "array": (b"[1,2]", "wrong-type", "Expected `object`, got `array`", 1),
    "string": (b'"session"', "wrong-type", "Expected `object`, got `str`", 1),
    "number": (b"17", "wrong-type", "Expected `object`, got `int`", 1),
    "null": (b"null", "wrong-type", "Expected `object`, got `null`", 1),
    "NUL bytes": (b"\0\0\0", "bad-json", "JSON is malformed", 1),
    "NUL byte at the end": (FIRST + b"\0", "bad-json", "trailing characters", 1),
    "gzip": (b"\x1f\x8b\x08\x00", "bad-utf8", "Invalid UTF-8", 1),
    "nested deeply": (
        b'{"session":' + b"[" * 100_000,
        "wrong-type",
        "Expected `int`, got `array`",
        1,
    ),
    "nested deeply in an unknown field": (
        b'{"x":' + b"[" * 100_000,
        "unknown-field",
        "unknown field `x`",
        1,
    ),
    "invalid UTF-8": (
        b'{"session":\xff}',
        "bad-utf8",
        "Invalid UTF-8: invalid start byte (byte 11)",
        1,
    ),
    "invalid UTF-8 in a field": (
        FIRST.replace(b"clicks", b"\xc3\x28"),
        "bad-utf8",
        "Invalid UTF-8",
        1,
    ),
    "UTF-16": ("{}".encode("utf-16"), "bad-utf8", "Invalid UTF-8", 1),
    "Latin-1": ("kl\u00fcck".encode("latin-1"), "bad-utf8", "Invalid UTF-8", 1),
    "negative session": (
        line(-1, (10, 0)),
        "out-of-range",
        "Expected `int` >= 0 - at `$.session`",
        1,
    ),
    "negative aid": (
        line(7, (10, 0), (-1, 0)),
        "out-of-range",
        "Expected `int` >= 0 - at `$.events[1].aid`",
        1,
    ),
    "int overflow": (
        EVENT % (b"9223372036854775808", b"1", b'"clicks"'),
        "out-of-range",
        "<= 9223372036854775807",
        1,
    ),
    "huge int": (EVENT % (b"9" * 400, b"1", b'"clicks"'), "out-of-range", "", 1),
    "float": (
        EVENT % (b"1.5", b"1", b'"clicks"'),
        "wrong-type",
        "Expected `int`, got `float` - at `$.events[0].aid`",
        1,
    ),
    "whole float": (
        EVENT % (b"1.0", b"1", b'"clicks"'),
        "wrong-type",
        "Expected `int`, got `float`",
        1,
    ),
    "exponent": (
        EVENT % (b"1e3", b"1", b'"clicks"'),
        "wrong-type",
        "Expected `int`, got `float`",
        1,
    ),
    "leading zero": (EVENT % (b"007", b"1", b'"clicks"'), "bad-json", "invalid number", 1),
    "leading plus": (EVENT % (b"+7", b"1", b'"clicks"'), "bad-json", "invalid character", 1),
    "bool": (
        EVENT % (b"true", b"1", b'"clicks"'),
        "wrong-type",
        "Expected `int`, got `bool` - at `$.events[0].aid`",
        1,
    ),
    "number in quotes": (
        EVENT % (b'"1"', b"1", b'"clicks"'),
        "wrong-type",
        "Expected `int`, got `str`",
        1,
    ),
    "aid is null": (
        EVENT % (b"null", b"1", b'"clicks"'),
        "wrong-type",
        "Expected `int`, got `null`",
        1,
    ),
    "aid is an object": (
        EVENT % (b"{}", b"1", b'"clicks"'),
        "wrong-type",
        "Expected `int`, got `object`",
        1,
    ),
    "NaN": (EVENT % (b"NaN", b"1", b'"clicks"'), "bad-json", "JSON is malformed", 1),
    "unknown type": (
        line(7, (10, 0, "views")),
        "unknown-value",
        "Invalid enum value 'views' - at `$.events[0].type`",
        1,
    ),
    "type in capitals": (
        line(7, (10, 0, "Clicks")),
        "unknown-value",
        "Invalid enum value 'Clicks'",
        1,
    ),
    "type with a space": (
        line(7, (10, 0, "clicks ")),
        "unknown-value",
        "Invalid enum value 'clicks '",
        1,
    ),
    "type is null": (EVENT % (b"1", b"1", b"null"), "wrong-type", "Expected `str`, got `null`", 1),
    "type is a number": (EVENT % (b"1", b"1", b"0"), "wrong-type", "Expected `str`, got `int`", 1),
    "missing events": (b'{"session":7}', "missing-field", "missing required field `events`", 1),
    "empty object": (b"{}", "missing-field", "missing required field `session`", 1),
    "missing aid": (
        b'{"session":7,"events":[{"ts":1,"type":"clicks"}]}',
        "missing-field",
        "field `aid`",
        1,
    ),
    "field in capitals": (
        FIRST.replace(b"session", b"Session"),
        "unknown-field",
        "unknown field `Session`",
        1,
    ),
    "new field": (FIRST[:-1] + b', "shop": "de"}', "unknown-field", "unknown field `shop`", 1),
    "new field of an event": (
        FIRST.replace(b'"ts"', b'"price": 9, "ts"'),
        "unknown-field",
        "`price` - at `$.events",
        1,
    ),
    "session twice": (
        b'{"session":3,' + FIRST[1:],
        "duplicate-field",
        "field `session` more than once",
        1,
    ),
    "aid twice": (
        FIRST.replace(b'"ts"', b'"aid": 5, "ts"', 1),
        "duplicate-field",
        "field `aid` more than once",
        1,
    ),
    "no events": (line(7), "out-of-range", "Expected `array` of length >= 1 - at `$.events`", 1),
    "events is null": (
        b'{"session":7,"events":null}',
        "wrong-type",
        "Expected `array`, got `null`",
        1,
    ),
    "events is an object": (
        b'{"session":7,"events":{}}',
        "wrong-type",
        "Expected `array`, got `object`",
        1,
    ),
    "event is a number": (
        b'{"session":7,"events":[1]}',
        "wrong-type",
        "Expected `object`, got `int`",
        1,
    ),
    "ts too early": (
        line(7, (1, 0), (2, -T0 // 1000)),
        "broken-rule",
        "`ts` greater than or equal to 946684800000",
        2,
    ),
    "ts in the future": (
        EVENT % (b"1", b"3999999999999", b'"clicks"'),
        "in-the-future",
        "not to lie in the future",
        1,
    ),
    "ts too late": (
        EVENT % (b"1", b"9999999999999", b'"clicks"'),
        "broken-rule",
        "`ts` less than 4102444800000",
        1,
    ),
    "ts in seconds": (
        EVENT % (b"1", b"1700000000", b'"clicks"'),
        "broken-rule",
        "`ts` greater than or equal to",
        1,
    ),
    "ts in microseconds": (
        EVENT % (b"1", b"1700000000000000", b'"clicks"'),
        "broken-rule",
        "`ts` less than",
        1,
    ),
    "ts as a date": (
        EVENT % (b"1", b'"2023-11-14"', b'"clicks"'),
        "wrong-type",
        "Expected `int`, got `str`",
        1,
    ),
    "bad with CR": (b"oops\r", "bad-json", "JSON is malformed", 1),
    "bad with BOM": (b"\xef\xbb\xbfoops", "bad-json", "JSON is malformed", 1),
    "BOM within": (FIRST + b"\xef\xbb\xbf", "bad-json", "trailing characters", 1),
    "non-breaking space": ("\u00a0".encode(), "bad-json", "JSON is malformed", 1),
}


def test_the_corpus_has_more_than_forty_kinds():
    assert len({raw for raw, *_ in BAD.values()}) == len(BAD) > 40


@pytest.fixture(params=["msgspec", "compiled"])
def decoder(request, monkeypatch):
    """Both ways to decode must give the same answers."""
    loop = request.param == "compiled"
    if loop:
        importlib.import_module("kreislauf.lake.fast_decode")
    else:
        monkeypatch.delitem(sys.modules, "kreislauf.lake.fast_decode", raising=False)
    monkeypatch.setattr(decode, "WORTH_LOADING", 0 if loop else 1 << 60)


@pytest.mark.parametrize("name", BAD)
def test_bad_line_is_kept_as_it_came_with_a_reason_and_its_neighbours_load(name, decoder):
    bad, reason, rule, size = BAD[name]
    accounts = load([GOOD[0], bad, GOOD[1]])
    assert rows() == GOOD_ROWS
    (reject,) = lake.rejects(EVENTS).to_dicts()
    assert reject["raw"] == bad
    assert reject["reason"] == reason
    assert rule in reject["rule"]
    assert (reject["table"], reject["source"], reject["line"], reject["rows"]) == (
        "events",
        "shop/a.jsonl",
        2,
        size,
    )
    assert (accounts.lines_in, accounts.lines_loaded, accounts.lines_rejected) == (3, 2, 1)
    assert (accounts.rows_in, accounts.rows_kept, accounts.rows_rejected) == (3 + size, 3, size)


def test_all_bad_lines_at_once_keep_their_order_and_bytes():
    bad = [raw for raw, *_ in BAD.values()]
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


def test_blank_lines_crlf_bom_and_spaces_are_no_errors(decoder):
    spaced = GOOD[1].replace(b":", b" \t: ").replace(b"}", b" } ").replace(b"{", b"\r{  ")
    accounts = load([b"\xef\xbb\xbf" + GOOD[0] + b"\r", b"", b" \t\r", b"\xef\xbb\xbf", spaced])
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
    accounts = load(
        [line(2, (10, 0)), line(1, (11, 0)), line(1, (10, 1)), line(1, (10, 0, "orders"))]
    )
    assert (accounts.rows_kept, accounts.rows_duplicate) == (4, 0)


def test_same_file_twice_makes_no_new_version_and_returns_the_first_accounts():
    first = load([*GOOD, b"oops"])
    versions = log_versions(), log_versions("rejects")
    second = load([*GOOD, b"oops"], source="elsewhere/copy.jsonl")
    assert second == first.model_copy(update={"already_loaded": True})
    assert (log_versions(), log_versions("rejects")) == versions == (1, 1)
    assert rows() == GOOD_ROWS


def test_accounts_are_in_the_commit_that_stores_the_rows():
    accounts = load(GOOD)
    (commit,) = DeltaTable(lake_storage.uri("events")).history(1)
    assert commit["version"] == accounts.version == 1
    assert lake.Accounts.model_validate_json(commit["accounts"]) == accounts


def test_accounts_survive_checkpoints():
    files = [[line(n, (n, n))] for n in range(5)]
    accounts = [load(file) for file in files]
    table = DeltaTable(lake_storage.uri("events"))
    table.create_checkpoint()
    table.cleanup_metadata()
    load([line(9, (9, 9))])
    assert [load(file) for file in files] == [
        a.model_copy(update={"already_loaded": True}) for a in accounts
    ]
    assert lake.read(EVENTS, version=1).rows() == [(0, 0, T0, "clicks")]
    assert lake.read(EVENTS).height == 6


def test_accounts_that_do_not_balance_cannot_exist():
    counts = load([*GOOD, b"oops", b""]).model_dump()
    for field in counts:
        if field.startswith(("lines_", "rows_")):
            with pytest.raises(ValidationError, match="do not balance"):
                lake.Accounts(**counts | {field: counts[field] + 1})


class Killed(BaseException):
    """Stands for kill -9: no handler may swallow it."""


def killed_in(monkeypatch, where, lines):
    """Die instead of calling `where`, a step to the lake's storage, while `lines` are loaded."""

    def die(*_):
        raise Killed

    module = data_files if where == "put" else delta
    with monkeypatch.context() as patch:
        patch.setattr(module, where, die)
        with pytest.raises(Killed):
            load(lines)


DIRTY = [GOOD[0], b"oops", GOOD[1], b"\xff"]


@pytest.mark.parametrize("where", ["put", "commit"])
def test_a_load_killed_before_its_commit_leaves_nothing_to_see(monkeypatch, where):
    killed_in(monkeypatch, where, DIRTY)
    assert lake.watermark(EVENTS) is None
    assert lake.rejects(EVENTS).is_empty()
    assert not load(DIRTY).already_loaded
    assert rows() == GOOD_ROWS
    assert lake.rejects(EVENTS)["raw"].to_list() == [b"oops", b"\xff"]


@pytest.mark.parametrize(
    "lines", [DIRTY, GOOD, [b"bad too"]], ids=["the same file", "a good file", "a bad file"]
)
def test_rejects_follow_after_a_kill_right_behind_the_commit(monkeypatch, lines):
    killed_in(monkeypatch, "commits_metadata", DIRTY)
    assert rows() == GOOD_ROWS
    assert lake.rejects(EVENTS).is_empty()
    assert load(lines).already_loaded == (lines is DIRTY)
    assert rows() == GOOD_ROWS
    assert sorted(lake.rejects(EVENTS)["raw"]) == sorted(
        [b"oops", b"\xff", *(lines if lines == [b"bad too"] else [])]
    )


def test_the_spool_of_a_killed_load_is_removed_by_the_next_and_that_of_a_living_one_is_not(home):
    spools = home / "spool"
    started = (
        "import time; from kreislauf.lake import staging\n"
        "with staging.spool(): print(flush=True); time.sleep(60)"
    )
    with staging.spool() as living:
        with subprocess.Popen(
            [sys.executable, "-c", started], stdout=subprocess.PIPE, cwd=ROOT
        ) as process:
            process.stdout.readline()
            assert len(list(spools.iterdir())) == 2
            process.kill()
        load(GOOD)
        assert list(spools.iterdir()) == [living]
    assert not list(spools.iterdir())


def test_rejects_of_several_killed_loads_follow_once(monkeypatch):
    for n in range(3):
        with monkeypatch.context() as patch:
            patch.setattr(quarantine, "publish_rejects", lambda _: None)
            load([b"bad %d" % n, line(n, (n, n))])
        load([line(9, (9, n))]) if n == 1 else None
    quarantine.publish_rejects(EVENTS)
    quarantine.publish_rejects(EVENTS)
    assert sorted(lake.rejects(EVENTS)["raw"]) == [b"bad 0", b"bad 1", b"bad 2"]


def test_an_answer_that_is_lost_on_the_way_back_is_no_lost_race(monkeypatch):
    commit = delta.commit

    def deaf(*args):
        commit(*args)
        raise CommitFailedError("the put was repeated and found itself")

    monkeypatch.setattr(delta, "commit", deaf)
    monkeypatch.setattr(quarantine, "publish_rejects", lambda _: None)
    assert not load(GOOD).already_loaded
    assert rows() == GOOD_ROWS
    assert log_versions() == 1


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


def test_writers_of_overlapping_files_keep_each_row_once():
    race_on_overlapping_files()


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
    with pytest.raises(
        lake.LakeUnreachable, match=r"The lake at s3://shop/lake/events does not answer"
    ) as caught:
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
    class Other(pa.DataFrameModel):
        session: pl.Int64
        ts: pl.Int64
        nothing: pl.Int64

    with pytest.raises(
        ValueError, match=r"RawSession has the fields .*, Other the columns .*nothing"
    ):
        load(GOOD, table=replace(EVENTS, schema=Other))
    assert lake.watermark(EVENTS) is None


def test_a_rule_is_cut_in_its_middle_and_rare_ones_are_counted_together(monkeypatch):
    monkeypatch.setattr(intake, "MAX_RULES", 50)
    unknown = [
        b'{"session":1,"events":[{"aid":1,"ts":1,"type":"clicks","%d":1}]}' % n for n in range(900)
    ]
    long = [
        b'{"session":1,"events":[{"aid":1,"ts":1,"type":"clicks","%s":1}]}' % (b"x" * 9_000)
    ] * 7
    accounts = lake.load_file(EVENTS, File("a.jsonl", [*unknown, *long, *unknown[:2]], batch=100))
    assert accounts.lines_rejected == 909
    assert sum(reason.lines for reason in accounts.reasons) == 909
    assert len(accounts.reasons) == 11
    worst = accounts.reasons[0]
    assert worst.lines == 7
    assert worst.rule.startswith("Object contains unknown field `xxx")
    assert worst.rule.endswith("xxx` - at `$.events[...]`")
    assert len(worst.rule) < 220
    assert accounts.reasons[-1].rule == "Other rules"
    both = lake.total([accounts, accounts])
    assert (both.reasons[0].lines, both.reasons[-1].lines) == (14, 2 * accounts.reasons[-1].lines)


def test_a_load_counts_few_rules_however_many_names_come_from_outside(tmp_path):
    lines = intake.Intake(EVENTS, tmp_path)
    for batch in range(20):
        rejected = pl.DataFrame(
            {
                "source": "a.jsonl",
                "line": range(1_000),
                "reason": "unknown-field",
                "rule": [f"unknown field `{batch}-{n}`" for n in range(1_000)],
                "raw": b"{}",
                "rows": 1,
            },
            schema=validate.REJECTED,
        )
        none = pl.DataFrame(schema=EVENTS.dtypes)
        lines.add(validate.ValidatedLines(none, rejected, 1_000, 0, 0, 1_000))
    assert len(lines.reasons) <= 1_001
    assert lines.reasons.total() == 20_000


def test_a_batch_has_few_lines_however_short_they_are():
    raws = [RawLines.of("a.jsonl", [b"{}"] * 50_000, range(50_000)) for _ in range(10)]
    assert [sum(map(len, batch)) for batch in staging.batches(raws)] == [200_000, 200_000, 100_000]


def test_reasons_are_counted_without_positions():
    accounts = load(
        [
            line(7, (1, 0), (-1, 0)),
            line(8, (-1, 0)),
            b'{"session":"\xff"}',
            b'{"session" :"\xff"}',
            line(9),
        ]
    )
    reasons = [(reason.reason, reason.rule, reason.lines) for reason in accounts.reasons]
    assert reasons[:2] == [
        ("bad-utf8", "Invalid UTF-8: invalid start byte", 2),
        ("out-of-range", "Expected `int` >= 0 - at `$.events[...].aid`", 2),
    ]
    assert [count for _, _, count in reasons] == [2, 2, 1]


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
    """Plain Python's verdict on a line: its rows, None if blank, or how many rows its rejection
    counts."""
    try:
        if not raw.removeprefix(b"\xef\xbb\xbf").strip():
            return None
        raw = raw.decode().removeprefix("\ufeff")
        parsed = json.loads(raw)
        events = [(parsed["session"], e["aid"], e["ts"], e["type"]) for e in parsed["events"]]
    except (ValueError, TypeError, KeyError):
        return 1
    if not events or any(aid < 0 or kind == "views" for _, aid, _, kind in events):
        return 1
    return len(events) if any(ts < 946_684_800_000 for _, _, ts, _ in events) else events


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
@given(files=FILES, small=st.booleans())
def test_any_mixture_of_lines_balances_and_keeps_what_plain_python_keeps(
    tmp_path_factory, files, small
):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KREISLAUF_HOME", str(tmp_path_factory.mktemp("lake")))
        if small:
            # Many batches, and many buckets for each date.
            patch.setattr(staging, "BATCH_BYTES", 1)
            patch.setattr(staging, "BUCKET_ROWS", 2)
            patch.setattr(File, "batch", 2)
        kept = set()
        rejected = []
        hashes = set()
        for lines in files:
            accounts = lake.load_file(EVENTS, File("shop/a.jsonl", lines, File.batch))
            assert accounts.already_loaded == (accounts.sha256 in hashes)
            if accounts.sha256 in hashes:
                continue
            hashes.add(accounts.sha256)
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
        audit()


class WiderEvent(msgspec.Struct, forbid_unknown_fields=True):
    aid: int
    ts: int
    type: Literal["clicks", "carts", "orders", "views"]
    price: float | None = None


class WiderSession(msgspec.Struct, forbid_unknown_fields=True):
    session: int
    events: list[WiderEvent]


class WiderRow(Event):
    type: pl.Enum = pa.Field(dtype_kwargs={"categories": (*EVENT_TYPES, "views")})
    price: pl.Float64 = pa.Field(nullable=True)


WIDER = replace(EVENTS, line=WiderSession, schema=WiderRow)
"""The table after the shop has introduced views and prices."""
PRICED = line(8, (1, 0)).replace(b'"ts"', b'"price": 9.5, "ts"')


def audit(table=EVENTS):
    """The sums of all accounts are what is in the tables."""
    loads = lake.history(table)
    assert sum(a.rows_kept for a in loads) == lake.read(table).height
    replayed = sum(a.lines_in for a in loads if a.kind == "replay")
    assert sum(a.lines_rejected for a in loads) - replayed == lake.rejects(table).height


def test_replay_after_a_rule_was_mended_keeps_the_accounts_and_the_rest():
    old = load([line(7, (1, 0, "views"), (1, 1)), b"oops", GOOD[0]], source="it's.jsonl")
    load([line(1, (10, 0), (11, 5, "views")), b"oops too"], source="b.jsonl")
    assert lake.rejects(EVENTS).height == 4
    accounts = lake.replay(WIDER, "it's.jsonl", old.sha256)
    assert (accounts.kind, accounts.lines_in, accounts.lines_loaded, accounts.lines_rejected) == (
        "replay",
        2,
        1,
        1,
    )
    assert (7, 1, T0, "views", None) in lake.read(WIDER).rows()
    assert set(lake.rejects(EVENTS)["raw"]) == {
        b"oops",
        b"oops too",
        line(1, (10, 0), (11, 5, "views")),
    }
    audit(WIDER)
    again = lake.replay(WIDER, "it's.jsonl", old.sha256)
    assert (again.lines_in, again.lines_rejected, again.rows_kept) == (1, 1, 0)
    audit(WIDER)


def test_replayed_rows_that_came_by_another_way_are_duplicates():
    old = load([line(7, (1, 0, "views"))])
    load([line(7, (1, 0, "views")), b""], source="mended.jsonl", table=WIDER)
    accounts = lake.replay(WIDER, "shop/a.jsonl", old.sha256)
    assert (accounts.lines_loaded, accounts.rows_kept, accounts.rows_duplicate) == (1, 0, 1)
    audit(WIDER)


@pytest.mark.parametrize("where", ["commit", "commits_metadata"])
def test_replay_that_is_killed_goes_on(monkeypatch, where):
    old = load([line(7, (1, 0, "views")), b"oops"])
    with monkeypatch.context() as patch:
        patch.setattr(delta, where, lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            lake.replay(WIDER, "shop/a.jsonl", old.sha256)
    lake.replay(WIDER, "shop/a.jsonl", old.sha256)
    assert lake.read(WIDER).rows() == [(7, 1, T0, "views", None)]
    assert lake.rejects(WIDER)["raw"].to_list() == [b"oops"]
    audit(WIDER)


def test_two_replays_at_once_count_once(monkeypatch):
    old = load([line(7, (1, 0, "views")), b"oops"])
    commit = delta.commit

    def overtaken(*args):
        monkeypatch.setattr(delta, "commit", commit)
        lake.replay(WIDER, "shop/a.jsonl", old.sha256)
        commit(*args)

    monkeypatch.setattr(delta, "commit", overtaken)
    with pytest.raises(lake.Overtaken, match="events/replays"):
        lake.replay(WIDER, "shop/a.jsonl", old.sha256)
    audit(WIDER)


def test_new_column_and_new_event_type_are_added_and_old_rows_have_null():
    before = load([GOOD[0], PRICED, line(9, (1, 0, "views"))])
    assert [r.reason for r in before.reasons] == ["unknown-field", "unknown-value"]
    load([PRICED, line(9, (1, 0, "views"))], source="b.jsonl", table=WIDER)
    assert lake.read(WIDER)["price"].to_list() == [None, None, 9.5, None]
    assert lake.read(WIDER, version=before.version).rows() == [
        (*row, None) for row in GOOD_ROWS[:2]
    ]
    assert lake.digest(lake.read(WIDER, before.version)) == lake.digest(
        lake.read(EVENTS, before.version)
    )
    assert lake.replay(WIDER, "shop/a.jsonl", before.sha256).rows_duplicate == 2


def test_old_code_beside_a_newer_table_says_what_it_does_not_know():
    load([GOOD[0], line(9, (1, 0, "views"))], table=WIDER)
    with pytest.raises(lake.LakeError, match="views"):
        lake.read(EVENTS)


def test_column_whose_type_changes_is_refused():
    class Text(Event):
        aid: pl.String

    load(GOOD)
    with pytest.raises(lake.LakeError, match="aid is Int64, not String"):
        load([line(9, (9, 9))], table=replace(EVENTS, schema=Text))


def test_late_events_land_in_their_own_date_and_sessions_go_on_in_later_files():
    day = 86_400
    load([line(1, (10, 0), (11, 2 * day))])
    late = load([line(1, (12, day), (13, 3 * day), (10, 0))], source="b.jsonl")
    assert (late.rows_kept, late.rows_duplicate) == (2, 1)
    assert [row[1] for row in rows()] == [10, 12, 11, 13]
    dates = delta.files(delta.find("events"))["partition.event_date"].cast(pl.String).to_list()
    assert sorted(dates) == ["2023-11-14", "2023-11-15", "2023-11-16", "2023-11-17"]
    assert lake.read(EVENTS, start=T0 + 86_400_000, end=T0 + 3 * 86_400_000).height == 2


def test_too_many_rejects_stop_a_load_before_anything_is_visible():
    lines = [line(n, (n, n)) for n in range(75)] + [b"oops"] * 25
    with pytest.raises(
        lake.TooManyRejects,
        match=r"25 of 100 lines \(25.0%\).* limit of 20.0% \(25 lines: bad-json",
    ) as caught:
        load(lines, max_reject_share=0.2)
    assert caught.value.counts.lines_rejected == 25
    assert lake.watermark(EVENTS) is None
    assert lake.rejects(EVENTS).is_empty()
    assert load(lines, max_reject_share=0.25).lines_rejected == 25


def test_a_few_rejects_never_stop_a_load():
    few = lake.MIN_REJECTS - 1
    assert load([*GOOD, *[b"oops"] * few], max_reject_share=0.0).lines_rejected == few


def test_rows_of_a_version_are_rebuilt_bit_for_bit_or_refused():
    first = load(GOOD)
    digest = lake.digest(lake.read(EVENTS))
    load([line(5, (1, 0))], source="b.jsonl")
    assert lake.rebuild(EVENTS, first.version, T0 + 5000, digest).rows() == GOOD_ROWS
    with pytest.raises(lake.LakeError, match="not the rows that a model learnt from"):
        lake.rebuild(EVENTS, first.version + 1, T0 + 5000, digest)
    changed = lake.read(EVENTS, first.version).with_columns(aid=pl.col("aid") + pl.lit(1))
    assert lake.digest(changed) != digest != lake.digest(lake.read(EVENTS).head(2))
