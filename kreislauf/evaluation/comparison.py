"""Means, differences and their confidence intervals, overall and by slice."""

import math
from statistics import NormalDist

import numpy as np

from kreislauf.evaluation.decision import Slice
from kreislauf.evaluation.intervals import Interval, intervals
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
    confidence_intervals = intervals([*differences.values()], groups, policy.confidence)
    return {
        **{name: float(each.values.mean()) for name, each in scores.items()},
        **dict(zip(differences, confidence_intervals, strict=True)),
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
