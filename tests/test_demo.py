import hashlib
import json
from datetime import UTC, datetime
from itertools import pairwise

import polars as pl

from demo.page import write_page
from demo.shop import START_MS, Plan, simulate
from kreislauf.clock import DAY_MS
from models.session_recommender.schema import EVENTS, Event


def test_the_shop_is_deterministic_and_valid(small_shop):
    assert small_shop.equals(
        simulate(Plan(days=16, sessions_per_day=60, articles=120, change_day=8))
    )
    Event.validate(small_shop.select(list(EVENTS.schema.to_schema().columns)))
    assert not small_shop.select(EVENTS.key).is_duplicated().any()


def test_the_shop_stays_the_one_that_published_numbers_are_about(small_shop):
    content = hashlib.sha256(small_shop.write_csv().encode()).hexdigest()
    assert content.startswith("b5b0bab87855557a"), "README and docs have numbers of this shop"


def test_the_season_replaces_articles_on_its_day_and_churn_does_so_before(small_shop):
    day = (small_shop["ts"] - START_MS) // DAY_MS
    articles = [
        set(small_shop.filter(day.is_between(first, first + 3))["aid"]) for first in (0, 4, 8, 12)
    ]
    new = [len(after - before) / len(after) for before, after in pairwise(articles)]
    assert new[1] > 0.2 > max(new[0], new[2])


def test_periods_hold_every_event_once_and_end_at_their_time(small_shop, tmp_path, prefect_harness):
    from demo.replay import split_by_time

    files, days = split_by_time(small_shop, tmp_path)
    assert len(files) == 2
    assert 9 < days < 10
    periods = [pl.read_ndjson(file).explode("events").unnest("events") for file in files]
    assert (
        pl.concat(periods)
        .select(small_shop.columns)
        .sort(EVENTS.key)
        .equals(small_shop.sort(EVENTS.key))
    )
    assert periods[0]["ts"].max() < periods[1]["ts"].min()


def test_the_page_stands_alone_and_tells_the_story(tmp_path):
    period = {
        "number": 1,
        "start": int(datetime(2026, 1, 5, tzinfo=UTC).timestamp() * 1000),
        "sessions": 2,
        "requests": 9,
        "version": 1,
        "live_recall": 0.5,
        "frozen_recall": 0.4,
        "table_recall": 0.45,
        "finding": "Decay: <b>",
        "trigger": "event",
        "story": "promote version 2",
        "seconds": 1.0,
    }
    summary = {
        "periods": 1,
        "frozen_recall": 0.4,
        "table_recall": 0.45,
        "live_recall": 0.5,
        "retrainings": 1,
        "events": 1,
        "promoted": 1,
        "refused": 0,
        "inconclusive": 0,
        "requests": 9,
    }
    text = write_page([period], json.loads(json.dumps(summary)), tmp_path / "page.html").read_text()
    assert "<svg" in text
    assert "2026-01-05" in text
    assert "Decay: &lt;b&gt;" in text
    assert 'src="http' not in text
    assert 'href="http' not in text.split("<table")[1]
