"""Recall@k, MRR@k and coverage@k of recommended articles, and their slices.

`answers` are int64 or text (n, m): raw article ids, best first, `PADDING` or `NO_ID` where there is
none; only the first `k` columns count. `labels` are as `answers`, (n,): the article that came next,
or what stands for none where it is unknown, which nothing hits.

With one label per example recall@k is the hit rate, as in Hidasi et al., "Session-based
recommendations with recurrent neural networks", 2016. OTTO's score is in
benchmarks/otto_protocol.py. Its recall of clicks is the mean of `recall` over the prefixes that
have a next click, with that click as the label.

numpy and Polars only.
"""

import math

import numpy as np
import polars as pl

from models import text
from models.buckets import bucket
from models.session_recommender.features import DAY_MS, MAX_EVENTS, padding_of
from models.session_recommender.schema import EVENT_TYPES

K = 20
"""Answers that count."""
LENGTHS = {"1": 1, "2": 2, "3-5": 3, "6-10": 6, ">10": 11}
"""Buckets of events before the label, and the smallest number of each."""
AGES = {"unseen": -math.inf, "<1": 0, "1-7": 1, "7-30": 7, ">=30": 30}
"""Buckets of days (24 h) since training first saw an article, and the smallest of each.

`unseen` is an article that training had not seen yet.
"""


def recall(answers: np.ndarray, labels: np.ndarray, k: int = K) -> np.ndarray:
    """1 where the label is among the first `k` answers, else 0: float64 (n,).

    Raises ValueError if answers and labels differ in number, or `k` is below 1.
    """
    return np.asarray(_hits(answers, labels, k).any(1), np.float64)


def mrr(answers: np.ndarray, labels: np.ndarray, k: int = K) -> np.ndarray:
    """1 / rank of the label among the first `k` answers, 0 where it is missing: float64 (n,).

    Raises ValueError as `recall` does.
    """
    hits = _hits(answers, labels, k)
    return np.where(hits.any(1), 1.0 / (hits.argmax(1) + 1), 0.0)


def coverage(answers: np.ndarray, catalogue_size: int, k: int = K) -> float:
    """Share of the catalogue's articles that are recommended to somebody, 0 to 1.

    It grows with the examples.

    Catalogue coverage of Ge, Delgado-Battenfeld and Jannach, "Beyond accuracy: evaluating
    recommender systems by coverage and serendipity", 2010.

    Raises ValueError if the catalogue is empty or has fewer articles than the answers, or `k` is
    below 1.
    """
    shown = text.distinct(_first(answers, k))
    count = int((shown != padding_of(answers)).sum())
    if catalogue_size < max(count, 1):
        raise ValueError(
            f"The answers hold {count} articles and the catalogue {catalogue_size}: "
            "count the articles of the rows that the model learnt from."
        )
    return count / catalogue_size


def slices(rows: pl.DataFrame, trained_on: pl.DataFrame) -> pl.DataFrame:
    """Slices of each of `SessionRecommender.examples(rows)`, a row for each in the same order.

    Columns:
    - session_length (Enum of `LENGTHS`): the events before the label, all of them.
    - article_age_days (Enum of `AGES`): from the article's first event in `trained_on` to the
      label's own time.
    - repeat: `repeat` if the session had the label's article at any time before, else `new`.
    - event_type: the label's.

    `rows` has the columns of the table events, of which `type` may be text. `trained_on` needs aid
    and ts; each article's first event counts, so no age is above what the rows cover.
    """
    first = trained_on.group_by("aid").agg(first=pl.col("ts").min())
    count = pl.int_range(pl.len(), dtype=pl.Int64)
    # The order of features.events.
    ordered = rows.cast({"type": pl.Enum(EVENT_TYPES)}).sort("session", "ts", "aid", "type")
    ordered = ordered.with_columns(seen=count.over("session"), before=count.over("session", "aid"))
    labels = ordered.filter(pl.col("seen").is_between(1, MAX_EVENTS - 1))
    labels = labels.join(first, on="aid", how="left", maintain_order="left")
    age = (pl.col("ts") - pl.col("first")) / DAY_MS
    days = labels.select(age.fill_null(-math.inf)).to_series()
    return labels.select(
        session_length=bucket(labels["seen"], LENGTHS),
        article_age_days=bucket(days, AGES),
        repeat=pl.when(pl.col("before") > 0).then(pl.lit("repeat")).otherwise(pl.lit("new")),
        event_type="type",
    )


def _first(answers: np.ndarray, k: int) -> np.ndarray:
    """The first `k` columns."""
    if k < 1:
        raise ValueError(f"k is {k}: at least one answer must count.")
    return answers[:, :k]


def _hits(answers: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    """Whether each answer is the label: bool (n, at most k)."""
    if len(answers) != len(labels):
        raise ValueError(
            f"There are {len(answers)} rows of answers for {len(labels)} labels: give one for each."
        )
    is_known = labels != padding_of(labels)
    return (_first(answers, k) == labels[:, None]) & is_known[:, None]
