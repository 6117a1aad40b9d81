"""Recall@20 and MRR@20 of each example, vectorised."""

import numpy as np


def recall(answers: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """1 where `labels` (n,) is among `answers` (n, k), else 0: float64 (n,)."""
    return (answers == labels[:, None]).any(1).astype(np.float64)


def mrr(answers: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """1 / rank of `labels` (n,) in `answers` (n, k), best first, 0 where it is missing: float64 (n,)."""
    hit = answers == labels[:, None]
    return np.where(hit.any(1), 1.0 / (hit.argmax(1) + 1), 0.0)
