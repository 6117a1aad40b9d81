"""What somebody should look at is named, with its cure, and calm data is not."""

import gzip
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest

from demo.shop import Plan, simulate
from kreislauf import exposures, lake
from kreislauf.clock import DAY_MS
from kreislauf.exposures import Exposure, Feedback
from kreislauf.monitoring import remarks
from kreislauf.monitoring.window import TrustedRows
from models.session_recommender.schema import EVENTS
from tests.kreislauf.lake.test_lake import T0, File

PLAN = Plan(days=8, sessions_per_day=300, articles=200)
DAY = pl.col("ts") // DAY_MS


@pytest.fixture(scope="module")
def shop() -> pl.DataFrame:
    """Eight days of a simulated shop."""
    return simulate(PLAN).select(*EVENTS.dtypes)


def looked_at(rows: pl.DataFrame, table=EVENTS) -> list[str]:
    start = int(rows["ts"].min())
    end = int(rows["ts"].max())
    return remarks.of_rows(table, TrustedRows.of(table, rows), start, end)


def bot(rows: pl.DataFrame, events: int) -> pl.DataFrame:
    """The rows, and one session of so many clicks, two days before their end."""
    start = int(rows["ts"].max()) - 2 * DAY_MS
    clicks = {
        "session": np.full(events, 777_777),
        "aid": np.arange(events),
        "ts": start + 1_000 * np.arange(events),
        "type": ["clicks"] * events,
    }
    return pl.concat([rows, pl.DataFrame(clicks, schema=rows.schema)])


def real_sessions(path: Path) -> pl.DataFrame:
    raw = path.read_bytes()
    if path.suffix == ".gz":
        raw = gzip.decompress(raw)
    sessions = pl.read_ndjson(raw).explode("events").unnest("events")
    return sessions.select("session", "aid", "ts", "type")


def restarting(rows: pl.DataFrame, share: float) -> pl.DataFrame:
    """The rows with session ids of which a share counts from 0 anew each day."""
    rank = pl.col("session").rank("dense").over(DAY).cast(pl.Int64)
    draws = pl.col("session").hash(1) % 100 < 100 * share
    return rows.with_columns(session=pl.when(draws).then(rank).otherwise("session"))


def test_one_session_with_most_events_is_named(shop):
    (sentence,) = looked_at(bot(shop, 20_000))
    share = 20_000 / (20_000 + shop.height)
    assert sentence.startswith(
        "1 sessions with more than 500 rows (the largest: 777777, 20000 rows) hold "
        f"{share:.0%} of all rows: probably a bot."
    )


def test_it_is_named_in_a_window_of_which_a_part_is_counted(shop, monkeypatch):
    monkeypatch.setattr(remarks, "COUNTED_ROWS", 5_000)
    (sentence,) = looked_at(bot(shop, 20_000))
    assert "(the largest: 777777, " in sentence
    assert "probably a bot" in sentence


def test_sessions_of_people_are_not_named(shop, shared):
    assert looked_at(shop) == []
    assert looked_at(bot(shop, 500)) == []
    assert looked_at(real_sessions(shared / "otto-sample" / "sessions.jsonl")) == []
    diginetica = real_sessions(shared / "diginetica" / "sessions.jsonl.gz")
    assert looked_at(diginetica) == []
    assert looked_at(bot(diginetica, 2_000)) == [], "they are too few to matter"


def test_ids_that_restart_every_day_are_named(shop):
    (sentence,) = looked_at(restarting(shop, 1.0))
    assert sentence.startswith("Session ids seem to restart: ")
    assert "with the date in front" in sentence


def test_visitors_who_come_back_are_not_taken_for_restarting_ids(shop):
    assert looked_at(restarting(shop, 0.5)) == []
    first_days = shop.filter(int(shop["ts"].min()) // DAY_MS + 2 > DAY)
    assert looked_at(restarting(first_days, 1.0)) == [], "one pair of days is no pattern"


def test_customers_may_come_every_day_and_do_much(shop):
    assert looked_at(bot(restarting(shop, 1.0), 20_000), replace(EVENTS, lasting=True)) == []


def land(days: float, feedback_days: float, rate: float = 0.5, hours: int = 24) -> list[str]:
    """Remarks a minute after `days` with two answers an hour, of which `rate` got a click in the
    first `feedback_days`."""
    shown = []
    taken = []
    for number in range(int(days * 2 * hours)):
        ts = T0 + number * DAY_MS // (2 * hours)
        about = (f"r{number}", ts, "tiny", 1, "champion")
        shown.append(msgspec.json.encode(Exposure(*about, f"u{number}", "[1]", 1.0)))
        if ts < T0 + feedback_days * DAY_MS and number % 10 < 10 * rate:
            taken.append(msgspec.json.encode(Feedback(*about, "click", "1")))
    lake.load_file(exposures.EXPOSURES, File("exposures.jsonl", shown))
    if taken:
        lake.load_file(exposures.FEEDBACK, File("feedback.jsonl", taken))
    return remarks.of_feedback("tiny", int(T0 + days * DAY_MS))


def test_feedback_that_stopped_is_named_with_its_last_time():
    (sentence,) = land(20, 12)
    assert sentence.startswith("The last feedback is of 2023-11-26 ")
    assert ", 8.0 days before the last answer. About " in sentence
    assert "request ids of the answers?" in sentence


def test_answers_that_stopped_are_named():
    land(5, 5)
    (sentence,) = remarks.of_feedback("tiny", T0 + 13 * DAY_MS)
    assert sentence.startswith("The last answer of the gateway in the lake is of 2023-11-19 ")
    assert "8.0 days before the newest row" in sentence


@pytest.mark.parametrize(
    ("days", "feedback_days", "rate"),
    [(20, 20, 0.5), (20, 19.5, 0.5), (20, 17, 0.1), (20, 0, 0.5)],
    ids=["goes on", "half a day", "seldom", "never any"],
)
def test_feedback_that_may_have_gone_on_is_not_named(days, feedback_days, rate):
    assert land(days, feedback_days, rate) == []


def test_without_answers_there_is_nothing_to_say():
    assert remarks.of_feedback("tiny", T0) == []
