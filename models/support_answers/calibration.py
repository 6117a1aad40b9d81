"""What is chosen on held-out questions: the temperature, and what is handed over."""

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

LOW = 0.05
"""Lowest temperature that is tried."""
HIGH = 20.0
"""Highest temperature that is tried."""
MARGIN = 1e-5
"""Difference below which two confidences may come from rounding."""
NEVER = 2.0
"""Threshold that no confidence reaches."""


def temperature(scores: np.ndarray, labels: np.ndarray) -> float:
    """Divisor of the scores (n, intents) under which the labels (n,) are likeliest.

    Guo et al., "On calibration of modern neural networks", 2017.
    """

    def loss(log_temperature: float) -> float:
        scaled = log_softmax(scores / np.exp(log_temperature), axis=1)
        return float(-scaled[np.arange(len(labels)), labels].mean())

    minimum = minimize_scalar(loss, bounds=(np.log(LOW), np.log(HIGH)), method="bounded")
    return float(np.exp(minimum.x))


def threshold(confidence: np.ndarray, is_right: np.ndarray, max_error: float) -> float:
    """Least confidence (n,) from which on at most `max_error` of the answers are wrong.

    It answers as many as it can. `NEVER` if even the surest are wrong too often.
    """
    order = np.argsort(-confidence, kind="stable")
    ordered = confidence[order]
    errors = np.cumsum(~is_right[order]) / np.arange(1, len(order) + 1)
    # Questions with one confidence are answered all, or none.
    is_last = np.append(ordered[1:] != ordered[:-1], True)
    allowed = np.flatnonzero((errors <= max_error) & is_last)
    if not len(allowed):
        return NEVER
    return float(ordered[allowed[-1]]) - MARGIN
