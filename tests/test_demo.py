import hashlib
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
import torch

from demo import mishaps, raw_files
from demo.shop import START_MS, Plan, simulate
from kreislauf import lake
from kreislauf.clock import DAY_MS
from models.session_recommender import SPEC, features, metrics, training
from models.session_recommender.features import Catalogue
from models.session_recommender.history import History
from models.session_recommender.schema import EVENTS, Event
from models.session_recommender.scorer import Scorer


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


def test_periods_hold_every_event_once_and_end_at_their_time(small_shop, tmp_path):
    files, days = raw_files.split_by_time(small_shop, tmp_path)
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


def test_a_fault_gives_some_events_of_its_time_a_placeholder_and_changes_no_other(small_shop):
    start = START_MS + 12 * DAY_MS
    with_fault = mishaps.with_placeholders(small_shop, start, 0.6)
    struck = with_fault.filter(pl.col("aid") == mishaps.PLACEHOLDER)
    assert struck["ts"].min() >= start
    of_fault = small_shop.filter(pl.col("ts") >= start).height
    assert 0.5 < struck.height / of_fault < 0.7
    before = with_fault.filter(pl.col("ts") < start)
    assert before.equals(small_shop.filter(pl.col("ts") < start))


def test_lines_of_a_newer_app_are_kept_until_the_rule_is_mended(
    small_shop, tmp_path, home, prefect_harness
):
    from flows.ingest import ingest
    from flows.replay import replay

    path = raw_files.write(small_shop, tmp_path / "shop.jsonl")
    mishaps.add_unknown_field(path, 5)
    assert ingest(str(path)).lines_rejected == 5
    assert replay().lines_loaded == 0
    with mishaps.unknown_fields_allowed():
        assert replay().lines_loaded == 5
    assert lake.read(EVENTS).height == small_shop.height


@pytest.fixture
def answers(small_shop):
    """A function that answers each prefix of the shop's sessions by the co-visitation table."""
    e = features.events(small_shop)
    catalogue = Catalogue(np.unique(e.aid))
    scorer = Scorer(History(e, catalogue).index(np.ones(len(e.aid), bool))).eval()
    articles, kinds, times = training.inputs(e)
    tensors = [torch.from_numpy(values) for values in (catalogue.rows(articles), kinds, times)]

    def answer() -> np.ndarray:
        with torch.inference_mode():
            return catalogue.raw()[scorer(*tensors)[0].numpy()]

    return answer


def test_a_turned_sign_leaves_no_good_answer(small_shop, answers):
    labels = SPEC.examples(small_shop).labels
    right = metrics.recall(answers(), labels).mean()
    with mishaps.worst_answers():
        assert metrics.recall(answers(), labels).mean() < right / 2


def test_reversed_answers_have_the_same_recall_and_the_best_article_last(small_shop, answers):
    right = answers()
    with mishaps.reversed_answers():
        wrong = answers()
    assert (right[:, ::-1] == wrong).all()
    labels = SPEC.examples(small_shop).labels
    assert metrics.recall(right, labels).mean() == metrics.recall(wrong, labels).mean()
