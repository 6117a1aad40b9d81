"""Confidence intervals of a mean over dependent examples: the percentile bootstrap over whole
groups (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, ch. 13)."""

import numpy as np
from pydantic import BaseModel, ConfigDict

RESAMPLES = 2_000
"""Number of bootstrap samples."""


class Interval(BaseModel):
    """A mean and its confidence interval."""

    model_config = ConfigDict(frozen=True)

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:+.4f} [{self.low:+.4f}, {self.high:+.4f}]"


def interval(values: np.ndarray, groups: np.ndarray, confidence: float) -> Interval:
    """Mean of `values` (n,) with its confidence interval; `groups` (n,) are resampled whole."""
    return intervals([values], groups, confidence)[0]


def intervals(values: list[np.ndarray], groups: np.ndarray, confidence: float) -> list[Interval]:
    """Means of several `values`, each (n,), with intervals from the same bootstrap samples."""
    return intervals_of(values, resample(values, groups), confidence)


def intervals_of(values: list[np.ndarray], means: np.ndarray, confidence: float) -> list[Interval]:
    """Means of several `values`, each (n,), with intervals from `means` of `resample`."""
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return [
        Interval(mean=float(each.mean()), low=float(lower), high=float(upper))
        for each, lower, upper in zip(values, low, high, strict=True)
    ]


def resample(values: list[np.ndarray], groups: np.ndarray) -> np.ndarray:
    """Means of several `values`, each (n,), in bootstrap samples of whole `groups` (n,): float64
    (RESAMPLES, values)."""
    _, index = np.unique(groups, return_inverse=True)
    sums = np.stack([np.bincount(index, each) for each in values])
    counts = np.bincount(index)
    rng = np.random.default_rng(0)
    n = len(counts)
    means = np.empty((RESAMPLES, len(values)))
    for i in range(RESAMPLES):
        weights = np.bincount(rng.integers(n, size=n), minlength=n).astype(float)
        means[i] = sums @ weights / (counts @ weights)
    return means
