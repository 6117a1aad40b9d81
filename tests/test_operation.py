"""The benchmark of the loop in operation: what trackers do wrong, the oracle, and the JSON line."""

import numpy as np
import polars as pl
import pytest

from benchmarks import operation, oracle, trackers, worlds
from benchmarks.timeline import Timeline, remembered_answers
from kreislauf.clock import HOUR_MS
from kreislauf.evaluation import scoring

SEED = 7


@pytest.fixture(scope="module")
def events() -> pl.DataFrame:
    shop = worlds.shop(SEED, articles=80, sessions_per_day=100)
    return worlds.days(shop, 0, 1, np.random.default_rng(SEED)).sort("session", "ts")


def broken(name: str, events: pl.DataFrame) -> pl.DataFrame:
    shop = worlds.shop(SEED, articles=80, sessions_per_day=100)
    kind, _ = trackers.KINDS[name]
    assert kind.fault is not None
    rows = kind.fault(shop, np.random.default_rng(SEED))(events)
    return rows.select(events.columns).sort("session", "ts")


def test_each_fault_of_a_tracker_does_what_it_says(events):
    order = ["session", "ts", "aid", "type"]
    shuffled = broken("random order", events)
    assert shuffled["ts"].to_list() == events["ts"].to_list()
    assert not shuffled.equals(events)
    assert (
        shuffled.select("session", "aid")
        .sort("session", "aid")
        .equals(events.select("session", "aid").sort("session", "aid"))
    )
    twice = broken("fired twice", events)
    assert twice.height == 2 * events.height
    assert twice.unique(order).height == twice.height, "the lake does not take them for one"
    half = broken("truncation", events)
    assert 0.4 < half.height / events.height < 0.6
    crawled = broken("bots", events)
    assert crawled.group_by("session").len()["len"].max() == trackers.BOT_PAGES
    category = broken("lost category", events)
    lost = set(events["aid"].unique()) - set(category["aid"].unique())
    assert 0 < len(lost) <= trackers.LOST_CATEGORY * 80
    assert broken("lost field", events)["type"].unique().to_list() == ["clicks"]
    late = broken("clock shift", events).join(events, on=["session", "aid", "ts"], how="anti")
    assert set(late["type"].unique()) <= {"carts", "orders"}


@remembered_answers()
def test_remapped_ids_are_named_left_out_and_never_trained_on_though_looks_come_every_hour():
    shop = worlds.shop(SEED, articles=200, sessions_per_day=300)
    history = worlds.days(shop, 0, 30, np.random.default_rng(SEED))
    change = worlds.at(32) + 7 * HOUR_MS
    kind, _ = operation.kinds()["id scheme"]
    shop_later = worlds.shop(SEED, articles=200, sessions_per_day=300)
    before = worlds.days(shop_later, 30, 33, np.random.default_rng(SEED + 1))
    assert kind.fault is not None
    fault = kind.fault(shop_later, np.random.default_rng(0))
    began = pl.col("ts").min().over("session")
    rows = pl.concat([before.filter(began < change), fault(before.filter(began >= change))])
    timeline = Timeline.start(history).with_rows(rows)
    assert timeline.cost(rows, change) > 0.5
    assert 0 < oracle.hours(timeline.champion.probe, history, rows, change) < 6
    for hour in range(-1, 13):
        timeline.look(change + hour * HOUR_MS)
    assert timeline.alarms[0][1] == "data fault"
    assert 0 < timeline.alarms[0][0] - change <= 12 * HOUR_MS
    assert timeline.excluded[0][0] <= change < timeline.excluded[0][1]
    assert timeline.trainings == []


def test_only_the_benchmark_itself_takes_answers_from_its_memory():
    answer = scoring.answer
    with remembered_answers():
        assert scoring.answer is not answer
    assert scoring.answer is answer
    assert answer.__module__ == scoring.__name__


def outcome(kind: str, **more) -> operation.Outcome:
    base = {"seed": 1, "kind": kind, "alarms": [], "promotions": [], "trainings": []}
    return operation.Outcome(**(base | more))


def test_the_diagnosis_is_the_first_verdict_after_which_something_is_done():
    alarms = [(-3.0, "data fault"), (5.0, "covariate shift"), (30.0, "concept drift")]
    drift = outcome("popularity", alarms=alarms)
    assert operation.diagnosis(drift) == (30.0, "concept drift")
    assert operation.diagnosis(drift, operation.WATCHED) == (5.0, "covariate shift")
    assert operation.diagnosis(outcome("season", alarms=alarms[:2])) == (5.0, "covariate shift")
    assert operation.diagnosis(outcome("season")) == (None, "stable")


def test_the_line_counts_what_each_name_says():
    right = {"concept drift": "concept drift", "data fault": "data fault"}
    outcomes = []
    for name, (_, verdicts) in operation.kinds().items():
        verdict = right.get(verdicts[0], verdicts[0])
        outcomes.append(
            outcome(name, alarms=[(-1.0, "stable"), (5.0, verdict)], oracle_hours=2.0, cost=0.3)
        )
    outcomes.append(outcome("none", alarms=[(9.0, "covariate shift"), (50.0, "concept drift")]))
    outcomes[-1].trainings_that_pay = 1
    for drift in outcomes[:3]:
        drift.promotions = [70.0]
    line = operation.line(outcomes, weeks=4)
    assert line["false_alarms_per_week"] == 0.25
    assert line["trained_on_fault"] == 0
    assert line["drift_answered_72h"] == 1
    assert line["diagnosis_right"] == 1
    assert line["hours_over_oracle"] == 3
    outcomes[0].promotions = [73.0]
    outcomes[4].promotions = [9.0]
    outcomes[5].alarms = [(5.0, "concept drift")]
    line = operation.line(outcomes, weeks=4)
    assert line["drift_answered_72h"] == pytest.approx(2 / 3, abs=1e-4)
    assert 0 < line["trained_on_fault"] < 0.2
    assert line["diagnosis_right"] == 0
