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

LEAST_VARIANCE = 0.8
"""Least variance of a user of an arm, as a share of that of a user of both arms."""


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
    error: np.ndarray
    """Standard error of the rate in the smaller arm, as a share of the rate: if all users are as
    those of both arms, or as those of one of them, whichever is the least."""

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

    def __add__(self, arm: "Moments") -> "Moments":
        """The moments of the users of both."""
        return Moments(self.users + arm.users, self.sums + arm.sums, self.products + arm.products)

    @property
    def rate(self) -> np.ndarray:
        """Hits per trial since the experiment began."""
        return self.sums[..., 0] / self.sums[..., 1]


def difference(champion: Moments, challenger: Moments) -> Estimate:
    """The challenger's rate minus the champion's; NaN where an arm has no trials.

    An arm with few hits looks more certain than it is, and one without any quite certain. So its
    variance is at least `LEAST_VARIANCE` of what it is if users are as those of both arms.
    """
    both = champion + challenger
    before = _weights_before(both)
    of_user = _covariance(both, before)[..., 0, 0]
    smaller = np.minimum(champion.users, challenger.users)
    error = _relative_error(both, of_user, smaller)
    variance = np.zeros_like(of_user)
    covariance = np.zeros_like(of_user)
    variance_before = np.zeros_like(of_user)
    for arm in (champion, challenger):
        spread = _covariance(arm, before)
        error = np.minimum(error, _relative_error(arm, spread[..., 0, 0], smaller))
        variance = variance + np.maximum(spread[..., 0, 0], LEAST_VARIANCE * of_user) / arm.users
        covariance = covariance + spread[..., 0, 1] / arm.users
        variance_before = variance_before + spread[..., 1, 1] / arm.users
    slope = np.divide(
        covariance, variance_before, out=np.zeros_like(variance), where=variance_before > 0
    )
    gap_before = ((challenger.means - champion.means) * before).sum(axis=-1)
    return Estimate(
        challenger.rate - champion.rate - slope * gap_before,
        variance - slope * covariance,
        variance,
        champion.rate,
        error,
    )


def _relative_error(arm: Moments, of_user: np.ndarray, users: np.ndarray) -> np.ndarray:
    """Standard error of the arm's rate if it had so many users, as a share of the rate; infinite if
    nobody has reacted. Of both arms, the least counts: a large one that nobody reacts to any more
    must not hide how surely the small one is known."""
    error = np.sqrt(of_user / users)
    nothing = np.full_like(error, np.inf)
    return np.divide(error, arm.rate, out=nothing, where=arm.rate > 0)


def _weights_before(both: Moments) -> np.ndarray:
    """Weights (..., 4) of a user's numbers whose sum says how many hits the user had before the
    experiment beyond what is usual; 0 of a user who was not there."""
    hits = both.sums[..., 2]
    trials = both.sums[..., 3]
    rate = np.divide(hits, trials, out=np.zeros_like(hits), where=trials > 0)
    zero = np.zeros_like(rate)
    return np.stack([zero, zero, zero + 1, -rate], axis=-1)


def _covariance(arm: Moments, before: np.ndarray) -> np.ndarray:
    """Covariance (..., 2, 2), between users, of what each adds to the rate of the arm, and of what
    each did before."""
    trials = arm.means[..., 1]
    zero = np.zeros_like(trials)
    during = np.stack([1 / trials, -arm.rate / trials, zero, zero], axis=-1)
    weights = np.stack([during, before], axis=-2)
    return weights @ arm.covariance @ weights.swapaxes(-1, -2)
