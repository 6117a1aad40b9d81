"""Accuracy, coverage, and slices of answered questions. numpy and Polars only."""

import numpy as np
import polars as pl

from models import text
from models.buckets import bucket
from models.support_answers.features import length_in_words

LENGTHS = {"1-3": 1, "4-8": 4, "9-15": 9, ">15": 16}
"""Buckets of words in a question, and the smallest number of each."""
COUNTS = {"unseen": 0, "<20": 1, "20-99": 20, ">=100": 100}
"""Buckets of an intent's questions in training, and the smallest number of each."""


def accuracy(intents: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """1 where the intent is the right one, else 0: float64 (n,), handed over or not."""
    return (intents[:, 0] == labels).astype(np.float64)


def coverage(intents: np.ndarray, is_handed_over: np.ndarray, count: int) -> float:
    """Share of the `count` known intents that somebody got as an answer, 0 to 1."""
    return len(text.distinct(intents[~is_handed_over])) / max(count, 1)


def slices(rows: pl.DataFrame, counts: pl.DataFrame) -> pl.DataFrame:
    """Slices of questions: a row for each of `rows`, in the same order.

    - words (Enum of `LENGTHS`): length of the question.
    - intent_seen (Enum of `COUNTS`): questions of the right intent in training, as `counts` with
      the columns intent and seen has them.
    """
    seen = rows.join(counts, on="intent", how="left", maintain_order="left")["seen"]
    lengths = rows.select(length_in_words()).to_series()
    return pl.DataFrame(
        {"words": bucket(lengths, LENGTHS), "intent_seen": bucket(seen.fill_null(0), COUNTS)}
    )
