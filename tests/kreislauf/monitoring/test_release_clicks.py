"""Users are counted whole, hours like with like, and looking often raises no false alarms."""

from statistics import NormalDist

import numpy as np
import pytest

from kreislauf.clock import DAY_MS, HOUR_MS
from kreislauf.evaluation import sequences
from kreislauf.monitoring import release_clicks
from kreislauf.monitoring.release_clicks import Answers

NIGHT = 1_700_006_400_000
"""Midnight, UTC."""


def answers(
    rates: np.ndarray, rng: np.random.Generator, users: int = 2, hours: float = 24.0
) -> Answers:
    """Answers over some hours from midnight, so many in a row to the same user, each clicked at its
    rate."""
    times = (NIGHT + np.linspace(0, hours * HOUR_MS, len(rates), endpoint=False)).astype(np.int64)
    return Answers(times, np.arange(len(rates)) // users, rng.random(len(rates)) < rates)


def called_worse(live: Answers, before: Answers) -> bool:
    """Whether a look at every hundredth answer ever calls it worse."""
    counts = range(release_clicks.MIN_ANSWERS, len(live) + 1, 100)
    return any(release_clicks.is_worse(live.slice(0, count), before) for count in counts)


def test_a_rate_has_the_error_of_whole_users():
    rng = np.random.default_rng(0)
    single = answers(np.full(4_000, 0.3), rng, users=1).rate()
    assert single.deviation == pytest.approx(np.sqrt(0.3 * 0.7), rel=0.05)
    clicked = np.repeat(rng.random(400) < 0.3, 10)
    together = Answers(np.arange(4_000), np.arange(4_000) // 10, clicked).rate()
    assert (together.users, together.mean) == (400, clicked.mean())
    assert together.deviation / np.sqrt(400) == pytest.approx(np.sqrt(0.3 * 0.7 / 400), rel=0.1)


def test_half_the_clicks_are_soon_worse_and_equal_ones_are_not():
    rng = np.random.default_rng(1)
    alarms = 0
    for _ in range(100):
        before = answers(np.full(8_000, 0.2), rng)
        assert release_clicks.is_worse(answers(np.full(1_500, 0.1), rng), before)
        alarms += called_worse(answers(np.full(8_000, 0.2), rng), before)
    assert alarms == 0


def test_looking_often_raises_no_false_alarms_where_any_fall_counts(monkeypatch):
    monkeypatch.setattr(release_clicks, "MIN_FALL", 0.0)
    monkeypatch.setattr(release_clicks, "FALSE_ALARM_RATE", 0.1)

    def alarms() -> int:
        rng = np.random.default_rng(2)
        pairs = [[answers(np.full(6_000, 0.2), rng) for _ in range(2)] for _ in range(200)]
        return sum(called_worse(live, before) for live, before in pairs)

    assert alarms() < 20
    monkeypatch.setattr(
        sequences, "margin", lambda count, rate, _: NormalDist().inv_cdf(1 - rate) / np.sqrt(count)
    )
    assert alarms() > 5


def test_nights_are_compared_with_nights():
    rng = np.random.default_rng(3)
    hours = np.arange(7 * 24_000) / 1_000 % 24
    before = answers(np.where(hours < 8, 0.1, 0.2), rng, hours=7 * 24)
    night = answers(np.full(8_000, 0.1), rng, hours=8)
    assert before.rate_at_hours_of(night).mean == pytest.approx(0.1, rel=0.05)
    assert before.rate_at_hours_of(before).mean == pytest.approx(before.rate().mean)
    assert not called_worse(night, before)
    assert called_worse(answers(np.full(8_000, 0.05), rng, hours=8), before)


def test_answers_of_less_than_a_day_or_of_other_hours_are_taken_as_they_are():
    rng = np.random.default_rng(4)
    minutes = answers(np.full(2_000, 0.2), rng, hours=0.5)
    later = Answers(minutes.times + HOUR_MS, minutes.users, minutes.clicked)
    assert minutes.rate_at_hours_of(later) == minutes.rate()
    gap = np.where(np.arange(2_000) < 1_000, 0, DAY_MS + 60_000)
    two_nights = Answers(minutes.times + gap, minutes.users, minutes.clicked)
    assert two_nights.rate_at_hours_of(later) == two_nights.rate()


def test_no_click_at_all_is_worse_only_if_clicks_were_frequent():
    rng = np.random.default_rng(5)
    none = answers(np.zeros(1_000), rng)
    assert release_clicks.is_worse(none, answers(np.full(8_000, 0.2), rng))
    assert not release_clicks.is_worse(none, answers(np.full(8_000, 0.003), rng))
