import polars as pl
import pytest

from kreislauf.clock import DAY_MS
from kreislauf.evaluation import split
from models import spec
from models.session_recommender.model_type import SessionRecommender
from models.session_recommender.schema import EVENTS
from models.spec import Policy

DAY = DAY_MS


def recommender(**policy) -> SessionRecommender:
    """The recommender with another policy."""

    class WithPolicy(SessionRecommender):
        pass

    WithPolicy.policy = Policy(**policy)
    return WithPolicy()


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
    rows = shop(days=10, per_day=100)
    at = split.cut(rows, recommender(min_effect=0.1, group_sd=0.5, min_groups=2), 7)
    assert at.watermark == rows["ts"].max()
    assert at.holdout == at.watermark - 2 * DAY + 1
    assert at.table_version == 7


def test_training_and_hold_out_share_no_session_and_no_event():
    rows = shop(days=10, per_day=100)
    at = split.cut(rows, recommender(min_effect=0.1, group_sd=0.5, min_groups=2), 0)
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
        split.cut(shop(days=4, per_day=100), recommender(), 0)


def test_sessions_of_one_event_do_not_make_a_hold_out_that_can_judge():
    """550 sessions a day, of which 65 % have one event: a day has 194 that the gate can use."""
    rows = shop(days=10, per_day=550)
    bounced = (pl.col("session") % 20 < 13) & (pl.col("aid") > 1)
    rows = rows.filter(~bounced)
    model_type = spec.load("session_recommender")
    at = split.cut(rows, model_type, 0)
    asked = model_type.examples(split.started(rows, EVENTS, at.holdout, at.watermark))
    assert at.groups == len(set(asked.groups.tolist()))
    needed = split.groups_needed(model_type.policy)
    assert needed <= at.groups < needed + 200
    assert split.detectable(at.groups, model_type.policy) <= model_type.policy.min_effect


def test_too_little_is_said_with_the_day_on_which_it_is_enough():
    rows = shop(days=8, per_day=100)
    with pytest.raises(split.TooSmall, match="enough will be there on 2024-01-03"):
        split.cut(rows, recommender(), 0)


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
