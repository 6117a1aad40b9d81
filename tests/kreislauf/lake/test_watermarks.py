"""The watermark is what many groups agree on, in the lake and in a training."""

import logging
import shutil

import numpy as np
import pytest

from kreislauf import lake
from kreislauf.clock import DAY_MS, HOUR_MS
from kreislauf.lake import exclusions, watermarks
from kreislauf.training import inputs
from models import spec
from models.session_recommender.schema import EVENTS
from tests.kreislauf.lake.test_lake import File, line

DAYS = 4
PER_DAY = 1_200
RECOMMENDER = spec.load("session_recommender")
NIGHTLY = np.array([1, 1, 1, 1, 2, 4, 12] + [60] * 17)
"""Weights of the hours of a day: a night has little."""


def shop(days: int = DAYS) -> list[bytes]:
    """Sessions of two events, fewer at night."""
    counts = np.round(PER_DAY * NIGHTLY / NIGHTLY.sum()).astype(int)
    hour_of_session = np.repeat(np.arange(24), counts)
    lines = []
    for day in range(days):
        for number, hour in enumerate(hour_of_session):
            second = 86_400 * day + 3_600 * int(hour) + 37 * number % 3_500
            session = 100_000 * day + number
            lines.append(line(session, (number % 50, second), (number % 50 + 1, second + 60)))
    return lines


def load(lines: list[bytes], name: str = "a") -> None:
    lake.load_file(EVENTS, File(f"shop/{name}.jsonl", lines))


@pytest.fixture
def agreed() -> int:
    """The newest event of a shop that is in the lake."""
    load(shop())
    return lake.watermark(EVENTS)


def test_an_hour_by_hour_look_ends_where_the_data_does():
    """At no hour of day or night is the newest event ahead of the others."""
    lines = shop(days=3)
    for end in range(48, 72):
        until = [text for text in lines if _second(text) < 3_600 * end]
        hours = np.array([_second(text) // 3_600 for text in until])
        values, counts = np.unique(hours, return_counts=True)
        newest = 1000 * max(map(_second, until))
        assert watermarks.last_agreed(values, counts, newest) == len(values) - 1, end


def _second(text: bytes) -> int:
    return (int(text.split(b'"ts": ')[1].split(b",")[0]) - 1_700_000_000_000) // 1000


@pytest.mark.parametrize("hours", [3, 23, 24 * 365 * 2])
def test_a_session_that_is_ahead_does_not_move_the_hold_out_and_is_named(agreed, hours, caplog):
    before = inputs.read_newest(RECOMMENDER).cut
    second = (agreed - 1_700_000_000_000 + hours * HOUR_MS) // 1000
    load([line(9_999_999, *((aid, second + aid) for aid in range(40)))], "ahead")
    with caplog.at_level(logging.WARNING):
        assert lake.watermark(EVENTS) == agreed
    assert "40 rows are ahead of it" in caplog.text
    data = inputs.read_newest(RECOMMENDER)
    assert data.newest.ahead == 40
    assert data.lineage("events", "key").ahead == 40
    assert (data.cut.holdout, data.cut.watermark) == (before.holdout, before.watermark)
    assert data.cut.groups == before.groups
    assert lake.read(EVENTS)["session"].max() == 9_999_999, "nothing is lost"


def test_a_few_wrong_clocks_are_ahead_however_they_are_spread(agreed):
    second = (agreed - 1_700_000_000_000) // 1000
    ahead = [line(9_000_000 + hour, (1, second + 3_600 * hour)) for hour in (3, 7, 11)]
    load(ahead, "ahead")
    assert lake.watermark(EVENTS) == agreed


def test_data_that_goes_on_after_a_gap_is_believed_within_hours(agreed):
    year = 365 * 86_400
    seconds = map(_second, shop(days=1))
    shifted = [line(7_000_000 + n, (1, year + second)) for n, second in enumerate(seconds)]
    load(shifted[:60], "later")
    assert lake.watermark(EVENTS) == agreed
    load(shifted[:200], "later still")
    assert lake.watermark(EVENTS) > agreed + 300 * DAY_MS


def test_what_was_ahead_counts_when_the_data_has_reached_it(agreed):
    second = (agreed - 1_700_000_000_000) // 1000
    load([line(9_999_999, (1, second + 20 * 3_600), (2, second + 20 * 3_600 + 5))], "ahead")
    load(shop(days=DAYS + 1)[DAYS * PER_DAY - 100 :], "the next day")
    assert lake.watermark(EVENTS) > agreed + 20 * HOUR_MS
    assert 9_999_999 in inputs.read_newest(RECOMMENDER).rows["session"]


def test_rows_are_rebuilt_where_a_session_goes_on_in_a_distrusted_stretch_at_the_end(agreed, home):
    start = agreed - 2 * HOUR_MS
    second = (start - 1_700_000_000_000) // 1000
    load([line(8_000_000, (1, second - 60), (2, second + 60))], "crossing")
    exclusions.exclude("events", start, agreed, "a placeholder")
    data = inputs.read_newest(RECOMMENDER)
    assert 8_000_000 not in data.rows["session"]
    shutil.rmtree(home / "cache")
    lineage = data.lineage("events", "key")
    assert lake.rebuild(EVENTS, *lineage.snapshot).equals(data.rows)
