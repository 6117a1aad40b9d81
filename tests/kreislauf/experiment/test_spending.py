"""Planned looks: the published boundaries, the power, and intervals that hold after early ends."""

import math

import numpy as np
import pytest

from kreislauf.experiment import design, spending

FIFTHS = [0.2, 0.4, 0.6, 0.8, 1.0]


def fifths() -> list[float]:
    """The boundaries at five equal looks."""
    return spending.bounds(FIFTHS, [spending.spent(fraction, 0.025) for fraction in FIFTHS])


def test_the_boundaries_are_the_published_ones():
    # Two-sided .05 at five looks, spending like O'Brien and Fleming: Jennison and Turnbull, "Group
    # Sequential Methods", 2000, and the programs that are checked against it.
    assert fifths() == pytest.approx([4.8769, 3.3569, 2.6803, 2.2898, 2.0310], abs=2e-4)


def test_one_look_is_the_usual_test():
    assert spending.bounds([40.0], [spending.spent(1, 0.025)]) == pytest.approx([1.95996], abs=1e-4)


def test_looks_cost_three_percent_more_users_at_most():
    drift_without_looks = 1.959964 + 1.281552
    assert 1 < (design.drift() / drift_without_looks) ** 2 < 1.03


def test_nothing_is_spent_twice():
    assert spending.power(FIFTHS, fifths(), 0.0) == pytest.approx(0.025, abs=1e-5)
    uneven = [0.1, 0.11, 0.7, 1.3]
    rates = [spending.spent(amount / 1.3, 0.025) for amount in uneven]
    bounds = spending.bounds(uneven, rates)
    assert spending.power(uneven, bounds, 0.0) == pytest.approx(0.025, abs=1e-4)


def test_the_interval_of_a_test_without_looks_is_the_usual_one():
    low, high = spending.interval([4.0], [1.96], 2.5, 0.025)
    assert (low, high) == pytest.approx((0.27, 2.23), abs=1e-3)


def test_the_interval_of_an_early_end_is_drawn_to_nothing():
    bounds = fifths()[:3]
    low, high = spending.interval(FIFTHS[:3], bounds, 2.9, 0.025)
    estimate = 2.9 / math.sqrt(0.6)
    assert 0 < low < estimate - 1.96 / math.sqrt(0.6)
    assert (low + high) / 2 < estimate
    passed = [*bounds[:2], 2.9]
    assert spending.power(FIFTHS[:3], passed, low) == pytest.approx(0.025, abs=1e-3)
    assert spending.power(FIFTHS[:3], passed, high) == pytest.approx(0.975, abs=1e-3)


@pytest.mark.parametrize("drift", [0.0, 1.5, 3.3])
def test_nineteen_of_twenty_intervals_hold_the_difference(drift):
    bounds = fifths()
    rng = np.random.default_rng(7)
    extremes = []
    for _ in range(1_500):
        steps = rng.normal(drift * 0.2, math.sqrt(0.2), 5).cumsum() / np.sqrt(FIFTHS)
        ends = np.flatnonzero(steps >= bounds)
        last = int(ends[0]) + 1 if len(ends) else 5
        passed = [*bounds[: last - 1], steps[last - 1]]
        extremes.append(spending.power(FIFTHS[:last], passed, drift))
    # The interval holds all drifts at which what was seen is not among the extremes.
    covered = np.mean([0.025 <= extreme <= 0.975 for extreme in extremes])
    assert covered == pytest.approx(0.95, abs=0.018)
