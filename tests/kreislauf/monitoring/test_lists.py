"""Right answers that are no names, such as the gains of a list: their frequency means nothing."""

import math

import msgspec
import numpy as np
import polars as pl
import pytest

from demo.search_shop import SearchShop
from demo.shop import START_MS
from kreislauf.clock import DAY_MS
from kreislauf.evaluation import scoring
from kreislauf.evaluation.intervals import interval
from kreislauf.monitoring import doubts, statistics, suspicion
from kreislauf.monitoring.probe import Probe
from kreislauf.monitoring.tail_probe import TailProbe
from models.search_ranker import SPEC

SHOP = SearchShop(searches_per_day=400, queries=300, change_day=3)


def rows_of(day: int) -> pl.DataFrame:
    lines = [msgspec.convert(line, SPEC.table.line) for line in SHOP.lines(day, day + 1)]
    return SPEC.table.unfold(lines).drop("line").sort(SPEC.table.order)


@pytest.fixture
def probe(tmp_path) -> Probe:
    """What sells is best, as two days have shown."""
    learnt = pl.concat([rows_of(0), rows_of(1)])
    onnx = SPEC.baseline(learnt, tmp_path)
    examples = SPEC.examples(rows_of(2))
    scores = SPEC.score(examples, scoring.answer(onnx, examples.inputs))
    reference = interval(scores, examples.groups, 0.95)
    profile = SPEC.training_profile(learnt.lazy()).collect()
    return Probe(SPEC, onnx, onnx, profile, rows_of(2), reference)


def test_a_season_of_searches_is_not_taken_for_other_ids(probe):
    season = rows_of(3)
    newest = TailProbe(probe).tails(season, START_MS + 4 * DAY_MS - 1, 4 * DAY_MS, {})
    assert len(newest) == 4
    assert all(tail.loss > 0.2 and doubts.sharp_loss(tail) for tail in newest)
    assert all(math.isnan(tail.label_correlation) for tail in newest)
    collapsed = [tail.model_copy(update={"live": 0.1}) for tail in newest]
    assert doubts.unlike(collapsed) == ""
    assert suspicion.fault(collapsed) is None
    assert probe.label_signals(SPEC.examples(season), season) == {}


def test_ids_texts_and_yes_or_no_are_names():
    names = [np.array([7, 7]), np.array(["size", "return"], object), np.array([True, False])]
    assert [statistics.are_names(labels) for labels in names] == [True] * 3
    assert not statistics.are_names(np.zeros((2, 50), np.float32))
