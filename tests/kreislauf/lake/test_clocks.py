"""Each source of a table has a clock; the watermark is where all that still deliver have been."""

import time
from types import SimpleNamespace

import polars as pl
import pytest

from kreislauf import lake
from kreislauf.clock import DAY_MS, HOUR_MS
from kreislauf.lake import clocks, compaction, delta, watermarks
from kreislauf.lake.clocks import Clock
from models.session_recommender.schema import EVENTS
from tests.kreislauf.lake.test_lake import T0, File, line

START = T0 // DAY_MS * DAY_MS + DAY_MS
"""Midnight before the first event, ms."""
WEB = "kafka://clicks"
APP = "s3://shop/app"


def sessions(source: str, first: float, last: float, per_hour: int = 10) -> list[bytes]:
    """Sessions of one event of a source, from hour `first` to hour `last` since `START`."""
    step = HOUR_MS // per_hour
    times = range(START + int(first * HOUR_MS), START + int(last * HOUR_MS), step)
    number = {WEB: 0, APP: 1}.get(source, 2)
    return [line(10 * (ts // step) + number, (ts % 50, (ts - T0) // 1000)) for ts in times]


def load(source: str | None, first: float, last: float, per_hour: int = 10) -> lake.Accounts:
    """Deliver the hours from `first` to `last`."""
    lines = sessions(source, first, last, per_hour)
    return lake.load_file(EVENTS, File(f"{source}/{first}-{last}.jsonl", lines), source_name=source)


def hour(time: int) -> float:
    """A time as hours since `START`, rounded up to the next tenth: the end of what came."""
    return round((time - START) / HOUR_MS + 0.1, 1)


def ends() -> float:
    return hour(lake.watermark(EVENTS))


def by_name() -> dict[str, clocks.Source]:
    return {source.name: source for source in clocks.sources("events")}


def play(days: range, app_days: range = range(1000), step: int = 6) -> list[float]:
    """A stream that lands every `step` hours, and a folder that gets each of `app_days` at its
    end; where the watermark is after each load."""
    marks = []
    for day in days:
        if day - 1 in app_days and day:
            load(APP, 24 * day - 24, 24 * day)
            marks.append(ends())
        for first in range(0, 24, step):
            load(WEB, 24 * day + first, 24 * day + first + step)
            marks.append(ends())
    return marks


def test_the_watermark_waits_for_a_source_that_comes_a_day_later():
    assert play(range(2)) == [6, 12, 18, 24, 24, 30, 36, 42, 48]
    # The folder has delivered beside the stream once more: from now on it is waited for.
    assert play(range(2, 5)) == [48] * 5 + [72] * 5 + [96] * 5
    accounts = load(APP, 96, 120)
    assert (accounts.source_name, hour(accounts.newest)) == (APP, 120)
    assert (by_name()[WEB].behind, by_name()[APP].behind) == (0, 0)
    assert ends() == 120


def test_a_source_that_stops_does_not_hold_the_watermark_for_ever(caplog):
    play(range(5))
    assert play(range(5, 8), app_days=range(0)) == [96] * 8 + [174, 180, 186, 192]
    assert by_name()[APP].stopped, "it came daily, and is more than three days behind"
    assert not by_name()[WEB].stopped
    with caplog.at_level("INFO"):
        back = [load(APP, 24 * day, 24 * day + 24) and ends() for day in range(4, 8)]
    assert back == [192] * 4, "what came meanwhile does not move it back"
    assert not by_name()[APP].stopped
    assert lake.read(EVENTS).height == 2 * 8 * 240, "late rows are in the table"


def test_a_stream_that_stops_is_told_by_a_folder():
    play(range(5))
    for day in (4, 5):
        load(APP, 24 * day, 24 * day + 24)
        assert not by_name()[WEB].stopped
    load(APP, 144, 168)
    assert by_name()[WEB].behind == 48 * HOUR_MS
    assert by_name()[WEB].stopped
    assert ends() == 168


def test_a_source_that_starts_with_its_history_moves_nothing_back():
    play(range(3), app_days=range(0))
    history = [load(APP, day, day + 24) and ends() for day in range(-240, 72, 24)]
    assert history == [72] * 13
    assert [source.stopped for source in clocks.sources("events")] == [False, False]
    assert play(range(3, 6)) == [72] + [72] * 4 + [96] * 5 + [120] * 5


def test_the_watermark_does_not_go_back_for_a_source_that_is_waited_for_from_now_on():
    load(APP, 0, 6)
    load(WEB, 0, 30)
    assert ends() == 30
    load(APP, 6, 12)
    assert ends() == 30
    load(WEB, 30, 36)
    assert ends() == 30, "it is where it was until the source has come so far"
    load(APP, 12, 33)
    assert ends() == 33


def test_files_that_a_stream_takes_over_from_have_not_stopped():
    load(APP, -240, -24)
    load(APP, -24, 0)
    assert play(range(6), app_days=range(0))[-1] == 144
    assert by_name()[APP].behind == 144 * HOUR_MS
    assert not by_name()[APP].stopped, "it never delivered beside the stream"


def test_a_weekly_file_is_not_waited_for():
    for week in range(2):
        play(range(7 * week, 7 * week + 7), range(0), 24)
        load(APP, 168 * week, 168 * week + 168)
    assert play(range(14, 16), app_days=range(0))[-1] == 384
    assert not by_name()[APP].stopped


def ahead(source: str, hours: float, number: int, end: float) -> None:
    """Sessions of a source, `hours` after its `end`."""
    lines = [
        line(9_000_000 + n, (1, int(START - T0 + (end + hours) * HOUR_MS) // 1000 + n))
        for n in range(number)
    ]
    lake.load_file(EVENTS, File(f"ahead-{hours}-{number}.jsonl", lines), source_name=source)


@pytest.mark.parametrize("hours", [20, 24 * 365])
def test_a_clock_that_is_ahead_in_one_source_stops_no_other(hours):
    play(range(5))
    ahead(WEB, hours, 1, 120)
    assert hour(by_name()[WEB].clock.newest) == 120
    assert by_name()[APP].behind == 24 * HOUR_MS
    assert not by_name()[APP].stopped
    ahead(APP, hours, 1, 96)
    assert hour(by_name()[APP].clock.newest) == 96
    assert ends() == 96


def test_small_loads_after_a_gap_are_believed_together():
    """240 sessions a day, so that a day's gap takes three: 1 % of them."""
    play(range(5))
    seen = []
    for number in range(4):
        ahead(WEB, 24 + 0.01 * number, 1, 120)
        seen.append(hour(by_name()[WEB].clock.newest) > 130)
    assert seen == [False, False, True, True]


def test_a_clock_is_not_ahead_of_the_wall_clock():
    now = START + 5 * HOUR_MS
    clock = clocks.moved(None, one_hour(START + 9 * HOUR_MS, 10), [], now)
    assert clock.newest == now


def test_loads_without_a_clock_count_for_none():
    old = load(None, 0, 24)
    assert (old.source_name, old.newest) == (None, None)
    assert clocks.sources("events") == []
    stored = old.model_dump_json(exclude={"source_name", "newest"})
    assert lake.Accounts.model_validate_json(stored) == old, "of a version before"
    load(WEB, 24, 48)
    assert [source.name for source in clocks.sources("events")] == [WEB]
    assert ends() == 48


def test_one_source_ends_where_the_rows_do():
    for first in range(0, 60, 6):
        load(WEB, first, first + 6)
        assert ends() == first + 6
    key = watermarks.delivered_id("events")
    assert delta.find("events").transaction_version(key) is None


def test_clocks_outlive_merged_files_and_a_log_that_is_summed_up():
    play(range(4))
    before = [source.clock for source in clocks.sources("events")]
    mark = ends()
    compaction.compact("events")
    delta.checkpoint("events")
    assert [source.clock for source in clocks.sources("events")] == before
    assert ends() == mark == 72
    version = lake.version(EVENTS)
    load(APP, 72, 96)
    assert ends() == 96
    earlier = watermarks.find(EVENTS, version)
    assert (hour(earlier.time), hour(earlier.agreed)) == (72, 96)
    assert str(earlier).endswith(
        "What is newer, up to 2023-11-18 23:54, waits for a source that is behind."
    )


def test_a_lag_that_is_seen_no_more_is_forgotten():
    stream = Clock(newest=100 * DAY_MS, loaded=0, groups=10, lag=0)
    clock = Clock(newest=stream.newest - DAY_MS, loaded=0, groups=10, lag=4 * DAY_MS)
    after = clocks.moved(clock, one_hour(stream.newest, 10), [stream], 200 * DAY_MS)
    assert after.lag == pytest.approx(4 * DAY_MS * 0.5 ** (1 / 3))
    slower = Clock(newest=stream.newest - 30 * DAY_MS, loaded=0, groups=10, lag=DAY_MS)
    after = clocks.moved(slower, one_hour(stream.newest, 10), [stream], 200 * DAY_MS)
    assert after.lag == 3 * DAY_MS, "a longer stop counts as the shortest"


@pytest.mark.parametrize(("age", "stopped"), [(HOUR_MS, [False, True]), (5 * DAY_MS, [False] * 2)])
def test_a_source_that_is_alone_stops_when_nothing_comes_of_what_happens(monkeypatch, age, stopped):
    """What was old when it came is a replay, and says nothing about today."""
    now = int(time.time() * 1000)
    for number in range(2):
        second = (now - age - T0) // 1000 + number
        file = File(f"{number}.jsonl", [line(number, (1, second))])
        lake.load_file(EVENTS, file, source_name=WEB)
    seen = []
    for hours in (23, 25):
        later = SimpleNamespace(time=lambda hours=hours: (now + hours * HOUR_MS) / 1000)
        monkeypatch.setattr(clocks, "time", later)
        (source,) = clocks.sources("events")
        assert source.silent == pytest.approx(hours * HOUR_MS, abs=HOUR_MS)
        seen.append(source.stopped)
    assert seen == stopped
    assert not source.is_late


def test_a_usual_pause_is_learnt_from_the_wall_clock():
    clock = Clock(newest=START, loaded=0, groups=1)
    first = clocks.moved(clock, one_hour(START, 1), [], 7 * HOUR_MS)
    assert (first.pause, first.lag) == (7 * HOUR_MS, None)
    later = clocks.moved(first, one_hour(START, 1), [], 7 * HOUR_MS + 9 * DAY_MS)
    assert later.pause == DAY_MS, "a stop counts as the shortest one"


def test_what_came_before_counts_less_by_the_hour():
    clock = Clock(newest=START, loaded=0, groups=240)
    half = clocks.moved(clock, one_hour(START + 12 * HOUR_MS, 60), [], 2 * START)
    assert half.groups == 120 + 60
    day = clocks.moved(clock, one_hour(START + 24 * HOUR_MS, 60), [], 2 * START)
    assert day.groups == 60


def one_hour(newest: int, groups: int) -> pl.DataFrame:
    """What a load of one hour is counted as."""
    schema = {"hour": pl.Int64, "groups": pl.UInt32, "newest": pl.Int64}
    return pl.DataFrame([[newest // HOUR_MS], [groups], [newest]], schema)
