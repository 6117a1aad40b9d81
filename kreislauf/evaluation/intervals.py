"""How sure is a mean over dependent examples? The percentile bootstrap over whole groups (Efron and
Tibshirani, "An Introduction to the Bootstrap", 1993, ch. 13)."""

import numpy as np
from pydantic import BaseModel, ConfigDict

RESAMPLES = 2_000


class Interval(BaseModel):
    """A mean and its bootstrap interval."""

    model_config = ConfigDict(frozen=True)

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:+.4f} [{self.low:+.4f}, {self.high:+.4f}]"


def interval(values: np.ndarray, groups: np.ndarray, confidence: float) -> Interval:
    """Mean of `values` (n,) with its interval; `groups` (n,) are resampled whole."""
    return intervals([values], groups, confidence)[0]


def intervals(values: list[np.ndarray], groups: np.ndarray, confidence: float) -> list[Interval]:
    """The same for several `values`, from the same resamples."""
    _, index = np.unique(groups, return_inverse=True)
    sums = np.stack([np.bincount(index, each) for each in values])
    counts = np.bincount(index)
    rng = np.random.default_rng(0)
    n = len(counts)
    means = np.empty((RESAMPLES, len(values)))
    for i in range(RESAMPLES):
        times = np.bincount(rng.integers(n, size=n), minlength=n).astype(float)
        means[i] = sums @ times / (counts @ times)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return [
        Interval(mean=float(v.mean()), low=float(a), high=float(b))
        for v, a, b in zip(values, low, high, strict=True)
    ]
