"""The shop's visitors click as often as is stated, more on better answers, each time alike."""

import numpy as np
import pytest

from demo import visitors
from demo.shop import NEXT, Plan, simulate
from demo.visitors import NEXT_SHARES, Visitors, examination

PLAN = Plan(days=9, sessions_per_day=300, articles=400, change_day=8, seed=3)
SIZE = 10


@pytest.fixture(scope="module")
def days() -> list[Visitors]:
    return list(visitors.days(PLAN))


@pytest.fixture(scope="module")
def day(days) -> Visitors:
    return days[0]


def best(day: Visitors) -> np.ndarray:
    """The articles that each visitor most probably wants, best first."""
    wanted = day.attraction(np.tile(day.offer.ids, (len(day), 1)))
    return day.offer.ids[np.argsort(-wanted, axis=1)[:, :SIZE]]


def test_the_steps_are_those_of_the_simulated_shop(days):
    shop = simulate(PLAN)
    assert sum(map(len, days)) == shop.height
    articles = np.concatenate([day.offer.ids[day.last] for day in days])
    assert shop["aid"].to_list() == articles.tolist()
    assert shop["ts"].to_list() == np.concatenate([day.time for day in days]).tolist()
    assert shop["session"].to_list() == np.concatenate([day.session for day in days]).tolist()


def test_what_is_asked_is_the_visit_so_far(day):
    steps = np.flatnonzero(day.session == day.session[0])
    rows = simulate(PLAN).filter(session=int(day.session[0])).select("aid", "ts", "type")
    events = rows.with_columns(rows["type"].cast(str)).to_dicts()
    requests = day.take(steps).requests()
    assert [len(request["events"]) for request in requests] == list(range(1, len(steps) + 1))
    assert requests[-1] == {"session": int(day.session[0]), "events": events}


def test_each_visitor_wants_exactly_one_article_next(day):
    wanted = day.attraction(np.tile(day.offer.ids, (len(day), 1)))
    assert wanted.min() > 0
    np.testing.assert_allclose(wanted.sum(axis=1), 1)


@pytest.mark.parametrize("place", range(NEXT))
def test_visitors_go_on_to_related_articles_as_often_as_stated(days, place: int):
    stated = []
    went = []
    for day in days:
        goes_on = np.flatnonzero(day.session[1:] == day.session[:-1])
        related = day.offer.next[day.last][:, place]
        wanted = day.attraction(day.offer.ids[related][:, None])[:, 0]
        stated.append(wanted[goes_on])
        went.append(day.last[goes_on + 1] == related[goes_on])
    probability = np.concatenate(stated)
    error = np.sqrt((probability * (1 - probability)).sum())
    assert abs(np.concatenate(went).sum() - probability.sum()) < 3.5 * error


def test_visitors_go_where_they_most_probably_want_to(day):
    wanted = day.attraction(np.tile(day.offer.ids, (len(day), 1)))
    went = day.session[1:] == day.session[:-1]
    stated = wanted[:-1][went]
    taken = day.last[1:][went]
    order = np.argsort(-stated, axis=1)
    for first, last in ((0, 1), (1, 5), (5, 20), (20, 400)):
        group = order[:, first:last]
        expected = np.take_along_axis(stated, group, axis=1).sum(axis=1)
        share = (group == taken[:, None]).any(axis=1)
        error = np.sqrt((expected * (1 - expected)).sum())
        assert abs(share.sum() - expected.sum()) < 4 * error, (first, last)


def test_clicks_are_as_frequent_as_stated(days):
    for answer in (best, lambda day: day.offer.ids[day.offer.next[day.last]]):
        stated = []
        clicked = []
        for day in days:
            shown = answer(day)
            stated.append(day.probabilities(shown))
            clicked.append(day.clicks(shown)[:, None] == np.arange(shown.shape[1]))
        probability = np.concatenate(stated)
        frequency = np.concatenate(clicked)
        error = np.sqrt((probability * (1 - probability)).sum(axis=0))
        deviation = np.abs(frequency.sum(axis=0) - probability.sum(axis=0))
        assert (deviation < 3.5 * error).all()
        assert frequency.any(axis=0).all(), "each position is clicked now and then"


def test_better_answers_earn_more(day):
    good = best(day)
    worse = good.copy()
    worse[:, ::2] = np.random.default_rng(1).choice(day.offer.ids, (len(day), SIZE // 2))
    worst = np.random.default_rng(2).choice(day.offer.ids, (len(day), SIZE))
    expected = [day.expected_clicks(shown).mean() for shown in (good, worse, worst)]
    assert expected[0] > 2 * expected[1] > 4 * expected[2]
    counted = [(day.clicks(shown) >= 0).mean() for shown in (good, worse, worst)]
    assert counted == sorted(counted, reverse=True)


def test_only_articles_on_offer_earn_anything(days):
    first = days[0]
    last = days[-1]
    unknown = np.full((len(first), SIZE), 77)
    assert first.expected_clicks(unknown).max() == 0
    assert (first.clicks(unknown) == -1).all()
    replaced = np.setdiff1d(first.offer.ids, last.offer.ids)[:SIZE]
    shown = np.tile(replaced, (len(last), 1))
    assert len(replaced) == SIZE
    assert last.expected_clicks(shown).max() == 0, "the season took them away"
    assert first.expected_clicks(np.tile(replaced, (len(first), 1))).min() > 0


def test_the_position_matters(day):
    good = best(day)
    assert (day.expected_clicks(good) > day.expected_clicks(good[:, ::-1])).all()
    alone = np.full((len(day), SIZE), -1)
    for position in range(SIZE):
        shown = alone.copy()
        shown[:, position] = good[:, 0]
        share = day.expected_clicks(shown) / day.expected_clicks(good[:, :1])
        np.testing.assert_allclose(share, 1 / (position + 1))
    np.testing.assert_allclose(examination(4), [1, 1 / 2, 1 / 3, 1 / 4])
    assert NEXT_SHARES.sum() == 1


def test_an_article_is_not_clicked_twice_in_an_answer(day):
    good = best(day)[:, :1]
    np.testing.assert_allclose(
        day.expected_clicks(np.repeat(good, SIZE, axis=1)), day.expected_clicks(good)
    )


@pytest.mark.slow
def test_the_seed_decides_over_the_clicks_and_nothing_else_does(day):
    good = best(day)
    again = next(iter(visitors.days(PLAN)))
    assert (again.clicks(good) == day.clicks(good)).all()
    part = np.arange(50, 90)
    assert (day.take(part).clicks(good[part]) == day.clicks(good)[part]).all()
    reseeded = next(iter(visitors.days(PLAN, seed=1)))
    assert (reseeded.session == day.session).all()
    np.testing.assert_array_equal(reseeded.expected_clicks(good), day.expected_clicks(good))
    assert (reseeded.clicks(good) != day.clicks(good)).any()
