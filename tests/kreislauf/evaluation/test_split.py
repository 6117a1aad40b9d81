import polars as pl
import pytest

from kreislauf.clock import DAY_MS
from kreislauf.evaluation import split
from models.session_recommender.schema import EVENTS
from models.spec import Policy

DAY = DAY_MS


def shop(days: int, per_day: int) -> pl.DataFrame:
    """`per_day` sessions a day at even times, three events a minute apart."""
    starts = [
        1_700_000_000_000 + d * DAY + i * DAY // per_day
        for d in range(days)
        for i in range(per_day)
    ]
    return pl.DataFrame(
        {
            "session": [s for s in range(len(starts)) for _ in range(3)],
            "aid": [1, 2, 3] * len(starts),
            "ts": [start + 60_000 * k for start in starts for k in range(3)],
            "type": ["clicks"] * 3 * len(starts),
        }
    )


def test_the_power_formula_gives_the_textbook_number():
    assert split.groups_needed(Policy(min_effect=0.1, group_sd=0.5, power=0.8, min_groups=2)) == 197


def test_the_hold_out_is_the_shortest_of_whole_days_that_has_the_groups():
    policy = Policy(min_effect=0.1, group_sd=0.5, min_groups=2)
    rows = shop(days=10, per_day=100)
    at = split.cut(rows, EVENTS, 7, policy)
    assert at.watermark == rows["ts"].max()
    assert at.holdout == at.watermark - 2 * DAY + 1
    assert at.table_version == 7


def test_training_and_hold_out_share_no_session_and_no_event():
    rows = shop(days=10, per_day=100)
    at = split.cut(rows, EVENTS, 0, Policy(min_effect=0.1, group_sd=0.5, min_groups=2))
    train, holdout = (
        rows.filter(pl.col("ts") < at.holdout),
        split.started(rows, EVENTS, at.holdout, at.watermark),
    )
    assert train["ts"].max() < at.holdout <= holdout["ts"].min()
    assert not set(train["session"]) & set(holdout["session"])
    cut_sessions = (
        rows["session"].n_unique() - train["session"].n_unique() - holdout["session"].n_unique()
    )
    assert cut_sessions <= 0
    crossing = rows.filter(pl.col("ts").is_between(at.holdout - 60_000, at.holdout))
    assert not set(crossing.filter(pl.col("ts") < at.holdout)["session"]) & set(holdout["session"])


def test_too_little_history_is_said_plainly():
    with pytest.raises(
        ValueError, match=r"events is too small to judge a model.*policy needs 2404"
    ):
        split.cut(shop(days=4, per_day=100), EVENTS, 0, Policy())


def test_halves_share_no_session_and_see_the_same_times():
    first, second = split.halves(shop(days=4, per_day=10), EVENTS)
    assert not set(first["session"]) & set(second["session"])
    assert first.height == second.height == 60
    assert abs(first["ts"].mean() - second["ts"].mean()) < DAY / 5


def test_some_are_whole_sessions_and_always_the_same():
    rows = shop(days=4, per_day=10)
    sample = split.some(rows, EVENTS, 50)
    assert sample.height == 48
    assert sample.equals(split.some(rows, EVENTS, 50))
    assert sample.group_by("session").len()["len"].to_list() == [3] * 16
    assert split.some(rows, EVENTS, 1_000).equals(rows)
