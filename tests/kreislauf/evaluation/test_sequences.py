"""A confidence sequence holds at all looks together, where an interval of fixed size does not."""

from statistics import NormalDist

import numpy as np
import pytest

from kreislauf.evaluation import sequences

RUNS = 1_000
COUNT = 5_000
FIRST = 100


@pytest.mark.parametrize("rate", [0.05, 0.5])
def test_the_mean_leaves_the_bound_seldom_however_often_one_looks(rate: float):
    rng = np.random.default_rng(0)
    clicks = rng.random((RUNS, COUNT)) < rate
    means = clicks.cumsum(axis=1) / np.arange(1, COUNT + 1)
    errors = (means[:, FIRST - 1 :] - rate) / np.sqrt(rate * (1 - rate))
    counts = np.arange(FIRST, COUNT + 1)
    margins = np.array([sequences.margin(int(count), 0.05, 1_000) for count in counts])
    above = (errors > margins).any(axis=1).mean()
    below = (errors < -margins).any(axis=1).mean()
    assert 0 < above < 0.05
    assert 0 < below < 0.05
    fixed = NormalDist().inv_cdf(0.95) / np.sqrt(counts)
    assert (errors < -fixed).any(axis=1).mean() > 0.2


def test_it_is_tightest_beside_that_of_other_counts_where_it_shall_be():
    widths = {tightest: sequences.margin(1_000, 0.01, tightest) for tightest in (10, 1_000, 90_000)}
    assert min(widths, key=lambda tightest: widths[tightest]) == 1_000
    narrowing = [sequences.margin(count, 0.01, 1_000) for count in (100, 1_000, 10_000)]
    assert narrowing == sorted(narrowing, reverse=True)
