"""The demo's searches and questions: deterministic, valid, and with a season that changes them."""

import msgspec
import numpy as np
import pytest

from demo import raw_files, search_shop
from demo.search_shop import SearchShop
from demo.support_desk import SupportDesk
from kreislauf import lake, sources
from kreislauf.evaluation import scoring
from models import spec
from models.search_ranker.baseline import best_feature
from models.search_ranker.features import lists
from models.support_answers.schema import OUT_OF_SCOPE

SHOPS = {
    "search_ranker": SearchShop(searches_per_day=200, queries=100, change_day=2),
    "support_answers": SupportDesk(questions_per_day=400, change_day=2),
}


def rows_of(model: str, first: int, last: int):
    """Rows of days [first, last) of a shop."""
    table = spec.load(model).table
    lines = msgspec.convert(SHOPS[model].lines(first, last), list[table.line])
    return table.unfold(lines).drop("line")


@pytest.mark.parametrize("model", SHOPS)
def test_every_line_is_loaded_and_lies_in_its_day(model, home, tmp_path):
    table = spec.load(model).table
    shop = SHOPS[model]
    lines = shop.lines(0, 4)
    path = raw_files.write_lines(lines, tmp_path / "lines.jsonl")
    counts = lake.load_file(table, sources.open_file(str(path), table, None), 0.0)
    assert (counts.lines_in, counts.lines_rejected) == (len(lines), 0)
    assert counts.rows_kept == rows_of(model, 0, 4).height
    days = [line["ts"] // 86_400_000 for line in lines]
    assert np.bincount(np.array(days) - days[0]).tolist() == [len(lines) // 4] * 4


@pytest.mark.parametrize("model", SHOPS)
def test_a_day_is_the_same_whatever_was_asked_for_before(model):
    shop = SHOPS[model]
    assert shop.lines(1, 3) == shop.lines(0, 4)[len(shop.lines(0, 1)) : len(shop.lines(0, 3))]
    assert shop.lines(1, 2) != type(shop)(**vars_of(shop) | {"seed": 1}).lines(1, 2)
    assert [line["ts"] for line in shop.lines(0, 1)] == sorted(
        line["ts"] for line in shop.lines(0, 1)
    )


def vars_of(shop) -> dict:
    """What a shop was made of."""
    return {name: getattr(shop, name) for name in shop.__dataclass_fields__}


def test_before_the_season_what_sells_is_right_and_then_what_is_new():
    before = best_feature(lists(rows_of("search_ranker", 0, 2), 5))
    season = best_feature(lists(rows_of("search_ranker", 2, 4), 5))
    assert (before, season) == ((2, 1.0), (4, -1.0)), "sales, upwards; then age, downwards"


def test_customers_see_the_first_results_more_often_and_people_judge_all():
    rows = rows_of("search_ranker", 0, 2)
    seen = rows.drop_nulls("position")
    by_place = [(seen.filter(position=place)["grade"] > 0).mean() for place in (1, 4)]
    judged = (rows.filter(rows["position"].is_null())["grade"] > 0).mean()
    assert by_place[0] > 2.5 * by_place[1], "seen four times as often, and a little worse"
    assert judged > 1.5 * (seen["grade"] > 0).mean()
    assert rows["features"].list.get(3).null_count() > 0.1 * rows.height, "not all are rated"
    assert search_shop.standardised(np.array([[0.5, np.nan, 1.0, 3.8, 1.0]]))[0, 1] == 0


def test_the_season_brings_new_questions_and_other_words(tmp_path):
    model_type = spec.load("support_answers")
    before = rows_of("support_answers", 0, 2)
    season = rows_of("support_answers", 2, 4)
    new = set(season["intent"]) - set(before["intent"])
    assert new == {"gift_wrap", "before_christmas", "exchange"}
    assert set(before["intent"]) < set(season["intent"])
    assert OUT_OF_SCOPE in set(before["intent"])
    words = [
        set(" ".join(rows.filter(intent="delivery")["text"]).split()) for rows in (before, season)
    ]
    assert "bleibt" in words[0] - words[1]
    assert "courier" in words[1] - words[0]
    old = model_type.baseline(before, tmp_path)
    examples = [model_type.examples(rows_of("support_answers", d, d + 1)) for d in (1, 2)]
    quality = [model_type.score(e, scoring.answer(old, e.inputs)).mean() for e in examples]
    assert quality[0] > 0.95
    assert 0.5 < quality[1] < 0.8
