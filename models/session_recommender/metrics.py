"""Recall@k, MRR@k, coverage@k and popularity bias of recommended articles, overall and by slice;
numpy and Polars.

`answers` are int64 (n, m): raw article ids, best first, `PADDING` where there is none; only the
first `k` columns count. `labels` are int64 (n,): the article that came next, or `PADDING` where it
is unknown, which nothing hits.

With one label per example recall@k is the hit rate, as in Hidasi et al., "Session-based
recommendations with recurrent neural networks", 2016. OTTO's score is in protocol.py; its recall of
clicks is the mean of `recall` over the prefixes that have a next click, with that click as the
label.
"""

import math
from collections.abc import Mapping

import numpy as np
import polars as pl

from models.session_recommender.features import DAY_MS, PADDING
from models.session_recommender.schema import EVENT_TYPES

K = 20
LENGTHS = {"1": 1, "2": 2, "3-5": 3, "6-10": 6, ">10": 11}
"""Buckets of events before the label, and the least of each."""
AGES = {"unseen": -math.inf, "<1": 0, "1-7": 1, "7-30": 7, ">=30": 30}
"""Buckets of days (24 h) since training first saw an article, and the least of each; `unseen` if it
had not yet."""


def recall(answers: np.ndarray, labels: np.ndarray, k: int = K) -> np.ndarray:
    """1 where the label is among the first `k` answers, else 0: float64 (n,).

    Raises ValueError if answers and labels differ in number, or `k` is below 1.
    """
    return np.asarray(_hits(answers, labels, k).any(1), np.float64)


def mrr(answers: np.ndarray, labels: np.ndarray, k: int = K) -> np.ndarray:
    """1 / rank of the label, from 1, among the first `k` answers, 0 where it is missing: float64
    (n,).

    Raises ValueError as `recall` does.
    """
    hits = _hits(answers, labels, k)
    return np.where(hits.any(1), 1.0 / (hits.argmax(1) + 1), 0.0)


def coverage(answers: np.ndarray, catalogue_size: int, k: int = K) -> float:
    """Share of the catalogue's articles that are recommended to somebody, 0 to 1. It grows with the
    examples.

    Catalogue coverage of Ge, Delgado-Battenfeld and Jannach, "Beyond accuracy: evaluating
    recommender systems by coverage and serendipity", 2010.

    Raises ValueError if the catalogue is empty or has fewer articles than the answers, or `k` is
    below 1.
    """
    shown = np.unique(_first(answers, k))
    found = int((shown != PADDING).sum())
    if catalogue_size < max(found, 1):
        raise ValueError(
            f"The answers hold {found} articles and the catalogue {catalogue_size}: "
            "count the articles of the rows that the model learnt from."
        )
    return found / catalogue_size


def popularity_bias(
    answers: np.ndarray, labels: np.ndarray, trained_on: pl.DataFrame, k: int = K
) -> float:
    """How many times as popular recommended articles are as those that visitors chose; 1 is no
    bias.

    An article's popularity is its number of events in `trained_on` (column aid), 0 if it has none.
    The result is the mean over all articles in the first `k` answers, each as often as it is
    recommended, over the mean over all labels. NaN if there is no answer or no label, or if
    training saw none of the labels.

    The first mean is the average recommendation popularity of Abdollahpouri et al., "Managing
    popularity bias in recommender systems with personalized re-ranking", 2019, if all examples have
    equally many answers. The ratio less 1 is their popularity lift ("The connection between
    popularity bias, calibration, and fairness in recommendation", 2020), with labels for the users'
    profiles. Raises ValueError if `k` is below 1.
    """
    counts = trained_on.group_by("aid").agg(popularity=pl.len())
    chosen = _popularity(labels, counts)
    return _popularity(_first(answers, k).ravel(), counts) / chosen if chosen else math.nan


def slices(rows: pl.DataFrame, trained_on: pl.DataFrame) -> pl.DataFrame:
    """What kind each example is: one row for each of `SessionRecommender.examples(rows)`, in the
    same order.

    Columns: session_length (Enum of `LENGTHS`), the events before the label, however few of them
    the model looks at; article_age_days (Enum of `AGES`), from the label's first event in
    `trained_on` to the label's own time; repeat, `repeat` if the session had the label's article
    before, however long ago, else `new`; event_type, the label's.

    `rows` has the columns of the table events, of which `type` may be text. Of `trained_on` only
    aid and ts count, and of those each article's first; no age is above what it covers.
    """
    first = trained_on.group_by("aid").agg(first=pl.col("ts").min())
    count = pl.int_range(pl.len(), dtype=pl.Int64)
    ordered = rows.cast({"type": pl.Enum(EVENT_TYPES)}).sort(
        "session", "ts", "aid", "type"
    )  # as features.events does
    ordered = ordered.with_columns(seen=count.over("session"), before=count.over("session", "aid"))
    labels = ordered.filter(pl.col("seen") > 0).join(
        first, on="aid", how="left", maintain_order="left"
    )
    days = labels.select(
        ((pl.col("ts") - pl.col("first")) / DAY_MS).fill_null(-math.inf)
    ).to_series()
    return labels.select(
        session_length=_bucket(labels["seen"], LENGTHS),
        article_age_days=_bucket(days, AGES),
        repeat=pl.when(pl.col("before") > 0).then(pl.lit("repeat")).otherwise(pl.lit("new")),
        event_type="type",
    )


def evaluate(
    answers: np.ndarray, labels: np.ndarray, by: pl.DataFrame, trained_on: pl.DataFrame, k: int = K
) -> pl.DataFrame:
    """Everything above: a row for all examples, then one for each value that occurs in each column
    of `by`.

    `by` has a row per example, such as from `slices`; `trained_on` are the rows that the model
    learnt from. Columns: slice and value (String, both "all" in the first row), examples (Int64),
    recall@k, mrr@k, coverage@k and popularity_bias@k (Float64, the last two in the first row only).
    Null is what is not defined: means of no example, and where `popularity_bias` is NaN. Values are
    in the order of their Enum, else ascending.

    Raises ValueError if answers, labels and `by` differ in number, and as `coverage` does.
    """
    if by.height != len(labels):
        raise ValueError(
            f"There are {len(labels)} labels and {by.height} rows of slices: take both from the same rows."
        )
    scored = pl.DataFrame(
        {f"recall@{k}": recall(answers, labels, k), f"mrr@{k}": mrr(answers, labels, k)}
    )
    means = {"examples": pl.len().cast(pl.Int64)} | {
        name: pl.col(name).mean() for name in scored.columns
    }
    overall = {
        f"coverage@{k}": pl.lit(coverage(answers, trained_on["aid"].n_unique(), k)),
        f"popularity_bias@{k}": pl.lit(popularity_bias(answers, labels, trained_on, k)).fill_nan(
            None
        ),
    }
    parts = [scored.select(slice=pl.lit("all"), value=pl.lit("all"), **means, **overall)]
    for values in by:
        part = scored.group_by(value=values).agg(**means).sort("value")
        parts.append(part.with_columns(pl.col("value").cast(pl.String), slice=pl.lit(values.name)))
    return pl.concat(parts, how="diagonal")


def _first(answers: np.ndarray, k: int) -> np.ndarray:
    if k < 1:
        raise ValueError(f"k is {k}: at least one answer must count.")
    return answers[:, :k]


def _hits(answers: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    """Where an answer is the label: bool (n, at most k)."""
    if len(answers) != len(labels):
        raise ValueError(
            f"There are {len(answers)} rows of answers for {len(labels)} labels: give one for each."
        )
    return (_first(answers, k) == labels[:, None]) & (labels[:, None] != PADDING)


def _popularity(aids: np.ndarray, counts: pl.DataFrame) -> float:
    """Mean of column `popularity` over `aids` (n,) without padding, NaN if there are none."""
    found = (
        pl.DataFrame({"aid": aids})
        .filter(pl.col("aid") != PADDING)
        .join(counts, on="aid", how="left")
    )
    mean = found.select(pl.col("popularity").fill_null(0).mean()).item()
    return math.nan if mean is None else mean


def _bucket(values: pl.Series, least: Mapping[str, float]) -> pl.Series:
    """The last bucket whose least value is not above each value: Enum."""
    index = np.searchsorted(list(least.values()), values.to_numpy(), side="right") - 1
    return pl.Series(list(least), dtype=pl.Enum(list(least))).gather(index)
