"""What the monitor keeps, and that reading it does not take longer with every look."""

import json

import polars as pl
import pytest

from kreislauf.clock import DAY_MS, HOUR_MS
from kreislauf.lake import delta, journal
from kreislauf.lake import storage as lake_storage
from kreislauf.monitoring import alarms, calibration, retention, tables
from kreislauf.monitoring.finding import Finding
from kreislauf.monitoring.policy import LOOK, Action
from tasks.lake import tidy_journal

START = 1_700_006_400_000
"""A midnight, UTC."""
WEEK = 7 * DAY_MS


def look(number: int, model: str = "m", version: int = 1) -> None:
    """Record one window of a week, which ends `number` hours after the first."""
    end = START + WEEK + number * HOUR_MS
    rows = calibration.signal_rows(
        model, version, end - WEEK + 1, end, WEEK, "stable", {"clicks": number, "regret": 0.0}
    )
    journal.append_once(tables.WINDOWS, f"{model}/{version}/{end}", rows)


def calibrate(version: int) -> None:
    """Record five calibration windows of a version, long before every look."""
    windows = [(n * WEEK, (n + 1) * WEEK - 1, {"clicks": 0.5}) for n in range(5)]
    calibration.record("m", version, WEEK, windows)


def files(name: str) -> int:
    """Number of files of the newest version of a table."""
    return delta.files(delta.find(name)).height


def test_old_windows_are_forgotten_and_calibration_is_not(storage):
    calibrate(1)
    for number in (0, 24, 24 * 40):
        look(number)
    look(0, "another")
    finding = Finding(
        model="m", version=1, groups=1, verdict="data fault", reason="It did.",
        start=START, end=START + 5,
    )  # fmt: skip
    alarms.record(finding, Action(sentence=LOOK))
    assert retention.forget_windows(39) == 3, "two rows of the window, and the alarm"
    kept = tables.read(tables.WINDOWS)
    assert kept.filter(model="m", verdict="calibration").height == 5
    assert kept.filter(model="m", verdict="stable", signal="clicks")["value"].sort().to_list() == [
        24.0,
        24.0 * 40,
    ]
    assert kept.filter(model="another").height == 2
    assert tables.read(tables.ALARMS).is_empty()
    assert retention.forget_windows(39) == 0
    newest = START + WEEK + 24 * 40 * HOUR_MS
    history = calibration.recorded_history("m", 1, newest - WEEK + 2, newest + 1)
    assert sorted(history["clicks"]) == [0.5] * 5 + [24.0]


def test_a_look_is_noted_in_few_files_and_reads_only_what_it_needs(storage, monkeypatch):
    calibrate(1)
    for number in range(12):
        look(number, version=2 - number % 2)
    assert files(tables.WINDOWS) == 13
    before = tables.read(tables.WINDOWS).sort(pl.all())
    tidy_journal.fn(tables.WINDOWS, 0)
    assert files(tables.WINDOWS) == 1
    assert tables.read(tables.WINDOWS).sort(pl.all()).equals(before)
    look(3)
    assert files(tables.WINDOWS) == 1, "it is still noted only once"
    fs, root = lake_storage.filesystem(tables.WINDOWS)
    newest = json.loads(fs.cat_file(f"{root}/_delta_log/_last_checkpoint"))["version"]
    assert newest == delta.find(tables.WINDOWS).version(), "no commit is read to open it"

    heights = []
    read = journal.read

    def counted(*args, **values):
        rows = read(*args, **values)
        heights.append(rows.height)
        return rows

    monkeypatch.setattr(journal, "read", counted)
    end = START + WEEK + 12 * HOUR_MS
    calibration.recorded_history("m", 1, end - WEEK + 1, end)
    assert heights == [5], "the calibration; every other window overlaps"


def test_a_log_of_yesterday_is_cut_from_now_on(storage):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal, "CUT_LOG", delta.KEEP_HISTORY)
        look(0)
    tidy_journal.fn(tables.WINDOWS, 0)
    assert delta.find(tables.WINDOWS).metadata().configuration == journal.CUT_LOG
    version = delta.find(tables.WINDOWS).version()
    tidy_journal.fn(tables.WINDOWS, 0)
    assert delta.find(tables.WINDOWS).version() == version
    look(1)
    assert tables.read(tables.WINDOWS).height == 4


def test_the_newest_page_of_each_day_and_of_each_of_its_alarms_stays():
    noon = 12 * HOUR_MS
    ends = [day * DAY_MS + hour * HOUR_MS for day in range(5) for hour in range(24)]
    fault = "data fault"
    drift = "concept drift"
    verdicts = {
        2 * DAY_MS + noon: fault,
        2 * DAY_MS: fault,
        3 * DAY_MS: drift,
        3 * DAY_MS + noon: fault,
    }
    old = retention.old_reports(ends, verdicts.items(), newest=ends[-1], days=3)
    last = 23 * HOUR_MS
    assert sorted(set(ends) - set(old)) == [
        2 * DAY_MS + noon,
        2 * DAY_MS + last,
        3 * DAY_MS,
        3 * DAY_MS + noon,
        3 * DAY_MS + last,
        4 * DAY_MS + last,
    ]
    assert retention.old_reports([], [], 0, 3) == []
    for end in ends:
        assert retention.report_end(retention.report_name(end)) == end
