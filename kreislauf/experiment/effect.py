"""The difference between two arms in a rate, such as clicks per answer, with the user as unit.

A rate is a ratio of two sums over users. Its variance is by the delta method (Deng, Knoblich and
Lu, "Applying the delta method in metric analytics", 2018): each user counts with what they deviate
from the rate. What users did before the experiment takes away the part of the variance that it
explains (CUPED: Deng, Xu, Kohavi and Walker, "Improving the sensitivity of online controlled
experiments by utilizing pre-experiment data", 2013).

All that is needed of the users are sums, so a look reads each row once.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class Estimate(NamedTuple):
    """What is known of the difference; each an array of the leading shape of the moments."""

    difference: np.ndarray
    """Rate of the challenger minus that of the champion, adjusted by what was before."""
    variance: np.ndarray
    """Variance of `difference`."""
    unadjusted_variance: np.ndarray
    """Variance of the difference without the adjustment."""
    champion_rate: np.ndarray
    """Rate of the champion, as it was."""

    @property
    def information(self) -> np.ndarray:
        """How much is known: one over the variance."""
        return 1 / self.variance


@dataclass(frozen=True)
class Moments:
    """Sums over the users of an arm, of four numbers of each user: hits and trials since the
    experiment began, such as clicks and answers; hits and trials before it."""

    users: np.ndarray
    """Number of users: (...)."""
    sums: np.ndarray
    """Sums of the numbers: (..., 4)."""
    products: np.ndarray
    """Sums of the products of each two: (..., 4, 4)."""

    @classmethod
    def of(cls, numbers: np.ndarray) -> "Moments":
        """The moments of users with these four `numbers` each, float64 (n, 4)."""
        return cls(np.array(len(numbers)), numbers.sum(axis=0), numbers.T @ numbers)

    @property
    def means(self) -> np.ndarray:
        """Mean of each number: (..., 4)."""
        return self.sums / self.users[..., None]

    @property
    def covariance(self) -> np.ndarray:
        """Covariance of the numbers between users: (..., 4, 4)."""
        outer = self.means[..., :, None] * self.means[..., None, :]
        return self.products / self.users[..., None, None] - outer

    @property
    def rate(self) -> np.ndarray:
        """Hits per trial since the experiment began."""
        return self.sums[..., 0] / self.sums[..., 1]


def difference(champion: Moments, challenger: Moments) -> Estimate:
    """The challenger's rate minus the champion's; NaN where an arm has no trials."""
    before = _weights_before(champion, challenger)
    spread = _mean_covariance(champion, before) + _mean_covariance(challenger, before)
    variance = spread[..., 0, 0]
    covariance = spread[..., 0, 1]
    variance_before = spread[..., 1, 1]
    slope = np.divide(
        covariance, variance_before, out=np.zeros_like(variance), where=variance_before > 0
    )
    gap_before = ((challenger.means - champion.means) * before).sum(axis=-1)
    return Estimate(
        challenger.rate - champion.rate - slope * gap_before,
        variance - slope * covariance,
        variance,
        champion.rate,
    )


def _weights_before(champion: Moments, challenger: Moments) -> np.ndarray:
    """Weights (..., 4) of a user's numbers whose sum says how many hits the user had before the
    experiment beyond what is usual; 0 of a user who was not there."""
    sums = champion.sums + challenger.sums
    hits = sums[..., 2]
    trials = sums[..., 3]
    rate = np.divide(hits, trials, out=np.zeros_like(hits), where=trials > 0)
    zero = np.zeros_like(rate)
    return np.stack([zero, zero, zero + 1, -rate], axis=-1)


def _mean_covariance(arm: Moments, before: np.ndarray) -> np.ndarray:
    """Covariance (..., 2, 2) of an arm's rate and of the mean of what its users did before."""
    trials = arm.means[..., 1]
    zero = np.zeros_like(trials)
    during = np.stack([1 / trials, -arm.rate / trials, zero, zero], axis=-1)
    weights = np.stack([during, before], axis=-2)
    return weights @ arm.covariance @ weights.swapaxes(-1, -2) / arm.users[..., None, None]
