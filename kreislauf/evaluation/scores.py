"""What the gate compares: a hold-out, and how well one model answered it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Holdout:
    """What all models were asked."""

    digest: str
    """Digest of the examples, their order and their labels: only scores with the same digest can be
    compared."""
    start: int
    """Time of the oldest example, ms since 1970 UTC."""
    groups: np.ndarray
    """Group of each example, shape (n,)."""
    slices: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Slice of each example, strings of shape (n,), by the property that tells slices apart."""
    clicked: np.ndarray | None = None
    """Whether each right answer was a click on an answer that was shown, (n,); None if nobody
    knows."""
    days: float = 1.0
    """Days that it is long."""


@dataclass(frozen=True)
class Cost:
    """What serving a file takes, measured on one machine in one go."""

    p95_ms: float
    """95th percentile of the latency of requests with one example, ms."""
    megabytes: float
    coverage: float | None = None
    """Share of all possible answers that it gave to anybody; None where that means nothing."""


@dataclass(frozen=True)
class Scores:
    """How well one model answered the hold-out."""

    values: np.ndarray
    """Metric per example, shape (n,), higher is better."""
    holdout: Holdout
    metric: str
    trained_until: int
    """End of what the model learnt from, ms since 1970 UTC, exclusive."""
    onnx: str
    """SHA-256 of the file that answered."""
    version: int | None = None
    """Number of the version; None for the trivial baseline."""
    cost: Cost | None = None
    probabilities: np.ndarray | None = None
    """How sure the model was that its answer is right, shape (n,), where it says so."""
