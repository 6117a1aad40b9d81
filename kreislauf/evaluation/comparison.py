"""Means, differences and their confidence intervals, overall and by slice."""

import math
from statistics import NormalDist

import numpy as np

from kreislauf.evaluation.decision import Slice
from kreislauf.evaluation.intervals import Interval, intervals_of, resample
from kreislauf.evaluation.scores import Holdout, Scores
from models.spec import Policy

CAUSED_CLICKS = 0.25
"""Share of the clicks on answers that would not have happened without them: the largest share
that Sharma, Hofman and Watts saw ("Estimating the causal impact of recommendation systems from
observational data", 2015)."""


def compare(scores: dict[str, Scores], policy: Policy) -> dict:
    """Means, differences and their confidence intervals, overall and by slice: the fields of the
    decision. `scores` are of challenger, baseline, and champion if there is one."""
    challenger = scores["challenger"]
    groups = challenger.holdout.groups
    differences = {
        "reference": challenger.values,
        "over_baseline": challenger.values - scores["baseline"].values,
    }
    slices: list[Slice] = []
    clicked = challenger.holdout.clicked
    if clicked is None:
        clicked = np.zeros(len(groups), bool)
    if "champion" in scores:
        gain = (challenger.values - scores["champion"].values) * weights(clicked)
        differences["gain"] = gain
        slices = compare_slices(gain, challenger.holdout, policy)
    values = [*differences.values()]
    means = resample(values, groups)
    confidence_intervals = dict(
        zip(differences, intervals_of(values, means, policy.confidence), strict=True)
    )
    reference = confidence_intervals["reference"]
    if "gain" in confidence_intervals:
        column = [*differences].index("gain")
        luck = winners_luck(means[:, 0], means[:, column], confidence_intervals["gain"], policy)
        reference = _moved(reference, -luck)
    confidence_intervals["reference"] = widened(reference, challenger.holdout.days, policy)
    return {
        **{name: float(each.values.mean()) for name, each in scores.items()},
        **confidence_intervals,
        "slices": slices,
        "clicked": float(clicked.mean()),
        "costs": {name: each.cost for name, each in scores.items() if each.cost is not None},
    }


def weights(clicked: np.ndarray, caused: float = CAUSED_CLICKS) -> np.ndarray:
    """Weights of examples, mean 1, (n,): of right answers that were clicks on an answer that the
    visitor was shown, where `clicked` (n,), the share that it `caused` does not count.

    The champion would be right there only because it was asked.
    """
    share = np.where(clicked, 1 - caused, 1.0)
    return share / share.mean()


def winners_luck(scores: np.ndarray, gains: np.ndarray, gain: Interval, policy: Policy) -> float:
    """By how much the score of a winner is too good, on average: it won because it was lucky, too.

    `scores` and `gains` are means in the same bootstrap samples, (n,). The luck in the gain is the
    mean of the truncated normal beyond what a promotion takes, minus the true gain, at an estimate
    of that gain which has been corrected once itself; the score has its share of it by regression.
    After Zhong and Prentice, "Bias-reduced estimators and confidence intervals for odds ratios in
    genome-wide association studies", 2008. 0 for a version that is not promoted.
    """
    if gain.low <= policy.superiority_margin:
        return 0.0
    covariance = np.cov(scores, gains)
    error = math.sqrt(covariance[1, 1])
    if error == 0:
        return 0.0
    normal = NormalDist()
    threshold = policy.superiority_margin + normal.inv_cdf((1 + policy.confidence) / 2) * error
    luck = 0.0
    for _ in range(2):
        distance = (threshold - gain.mean + luck) / error
        luck = error * normal.pdf(distance) / normal.cdf(-distance)
    return max(0.0, covariance[0, 1] / covariance[1, 1]) * luck


def widened(reference: Interval, days: float, policy: Policy) -> Interval:
    """A score on so many days as what other days will show: with the variance between days."""
    quantile = NormalDist().inv_cdf((1 + policy.confidence) / 2)
    between = quantile * policy.day_sd / math.sqrt(max(days, 1))
    mean = reference.mean
    return Interval(
        mean=mean,
        low=mean - math.hypot(mean - reference.low, between),
        high=mean + math.hypot(reference.high - mean, between),
    )


def _moved(interval: Interval, by: float) -> Interval:
    return Interval(mean=interval.mean + by, low=interval.low + by, high=interval.high + by)


def compare_slices(difference: np.ndarray, holdout: Holdout, policy: Policy) -> list[Slice]:
    """The mean of `difference` (n,) in every slice of at least `policy.slice_groups` groups.

    The confidence intervals hold for all slices at once (Bonferroni). They are of a ratio of sums
    over groups (Cochran, "Sampling Techniques", 1977, ch. 6).
    """
    samples = []
    for by, values in holdout.slices.items():
        for value in np.unique(values):
            inside = values == value
            _, index = np.unique(holdout.groups[inside], return_inverse=True)
            sums = np.bincount(index, difference[inside])
            counts = np.bincount(index)
            if len(counts) >= max(2, policy.slice_groups):
                samples.append((by, str(value), sums, counts))
    z = NormalDist().inv_cdf(1 - (1 - policy.confidence) / 2 / max(1, len(samples)))
    return [
        Slice(by=by, value=value, groups=len(counts), gain=_ratio_interval(sums, counts, z))
        for by, value, sums, counts in samples
    ]


def _ratio_interval(sums: np.ndarray, counts: np.ndarray, z: float) -> Interval:
    """A ratio of sums over groups, (groups,), with `z` standard errors on both sides."""
    n = len(counts)
    mean = sums.sum() / counts.sum()
    squares = float(((sums - mean * counts) ** 2).sum())
    error = math.sqrt(n / (n - 1) * squares) / counts.sum()
    return Interval(mean=mean, low=mean - z * error, high=mean + z * error)
