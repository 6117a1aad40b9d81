"""When a benefit is proven, at a few planned looks: a group-sequential test.

The error rate is spent from look to look (Lan and DeMets, "Discrete sequential boundaries for
clinical trials", 1983). Their function that is like O'Brien and Fleming's test spends little at
first, and nearly all at the end. So the test needs few more users than one without looks, and ends
earlier on average.

The statistic is followed as the score z * sqrt(information), which is a Brownian motion with a
drift: the difference. Its density among the tests that go on is integrated from look to look
(Armitage, McPherson and Rowe, "Repeated significance tests on accumulating data", 1969).
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

NODES, WEIGHTS = np.polynomial.legendre.leggauss(96)
"""Points, from -1 to 1, and weights of the integration."""
TAIL = 8.0
"""Standard deviations below its mean at which a score is called impossible."""


def spent(fraction: float, error_rate: float) -> float:
    """Part of the one-sided `error_rate` that is spent at this fraction of the information."""
    if fraction >= 1:
        return error_rate
    return float(2 * ndtr(ndtri(error_rate / 2) / math.sqrt(fraction)))


class Path:
    """The scores of tests that were not ended, look by look, if the difference is `drift`."""

    def __init__(self, drift: float = 0.0) -> None:
        self.drift = drift
        self.information = 0.0
        self.scores = np.zeros(1)
        self.mass = np.ones(1)

    def exceeds(self, information: float, score: float) -> float:
        """Probability that a test goes on until now, and has at least `score` at this
        `information`."""
        added = information - self.information
        above = (self.scores + self.drift * added - score) / math.sqrt(added)
        return float(self.mass @ ndtr(above))

    def go_on(self, information: float, bound: float) -> None:
        """Leave out the tests that have reached the score `bound` at this `information`."""
        added = information - self.information
        deviation = math.sqrt(added)
        lowest = min(self.drift * information - TAIL * math.sqrt(information), bound - deviation)
        half = (bound - lowest) / 2
        scores = lowest + half * (NODES + 1)
        steps = (scores[:, None] - self.scores - self.drift * added) / deviation
        density = np.exp(-(steps**2) / 2) @ self.mass / (deviation * math.sqrt(2 * math.pi))
        self.information = information
        self.scores = scores
        self.mass = density * WEIGHTS * half


def bounds(information: Sequence[float], spent_rates: Sequence[float]) -> list[float]:
    """The value of z from which on the benefit is proven, at each look.

    `information` grows from look to look. `spent_rates` are the error rates that may be spent until
    each look, from `spent`.
    """
    path = Path()
    values = []
    earlier = 0.0
    for amount, rate in zip(information, spent_rates, strict=True):
        bound = _bound(path, amount, max(rate - earlier, 0.0))
        earlier = max(rate, earlier)
        values.append(bound / math.sqrt(amount))
        path.go_on(amount, bound)
    return values


def _bound(path: Path, information: float, rate: float) -> float:
    """The score that tests reach at this `information` with the probability `rate`."""
    highest = TAIL * math.sqrt(information)
    if path.exceeds(information, highest) >= rate:
        return highest
    return brentq(lambda score: path.exceeds(information, score) - rate, -highest, highest)


def power(information: Sequence[float], z_bounds: Sequence[float], drift: float) -> float:
    """Probability that a benefit is proven at one of the looks if the difference is `drift`."""
    path = Path(drift)
    total = 0.0
    for amount, bound in zip(information, z_bounds, strict=True):
        score = bound * math.sqrt(amount)
        total += path.exceeds(amount, score)
        path.go_on(amount, score)
    return total


def interval(
    information: Sequence[float], z_bounds: Sequence[float], z: float, error_rate: float
) -> tuple[float, float]:
    """Confidence interval of the difference of a test that ended at the last of these looks, with
    `z`; each end misses it with the probability `error_rate`.

    A test that ends early has been lucky, so the usual interval misses the difference too often.
    This one counts what would have been more extreme: an end at an earlier look, or at the same
    one with a larger z. (Tsiatis, Rosner and Mehta, "Exact confidence intervals following a group
    sequential test", 1984.)
    """
    last = information[-1]
    centre = z / math.sqrt(last)
    reach = 12 / math.sqrt(last)
    passed = [*z_bounds[: len(information) - 1], z]

    def excess(drift: float, rate: float) -> float:
        return power(information, passed, drift) - rate

    lowest = centre - reach
    while excess(lowest, error_rate) > 0:
        lowest -= reach
    highest = centre + reach
    low = brentq(excess, lowest, highest, (error_rate,), xtol=reach / 1e5)
    high = brentq(excess, lowest, highest, (1 - error_rate,), xtol=reach / 1e5)
    return low, high
