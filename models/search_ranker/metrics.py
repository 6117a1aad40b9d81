"""NDCG of the order of a list, and slices of lists.

numpy and Polars only.
"""

import numpy as np
import polars as pl

from models.buckets import bucket
from models.search_ranker.features import NO_GAIN, judged

K = 10
"""Results that count."""
LENGTHS = {"1-5": 1, "6-10": 6, "11-20": 11, ">20": 21}
"""Buckets of results in a list, and the smallest number of each."""
SEARCHES = {"unseen": 0, "1-9": 1, "10-99": 10, ">=100": 100}
"""Buckets of searches of training with the same query, and the smallest number of each."""


def ndcg(ordered: np.ndarray, gains: np.ndarray, k: int = K) -> np.ndarray:
    """Normalised discounted cumulative gain of the first `k` results, 0 to 1: float64 (n,).

    `ordered` (n, results) are the gains in the order of the answer, `gains` (n, results) those of
    the list in any order; what is below 0 is no result. A list without a gain has 0. Järvelin and
    Kekäläinen, "Cumulated gain-based evaluation of IR techniques", 2002.
    """
    ideal = discounted(-np.sort(-gains, axis=1), k)
    return discounted(ordered, k) / np.where(ideal > 0, ideal, 1)


def reordered(items: np.ndarray, gains: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Gains (n, results) of `items`, in the order of `answers`; `NO_GAIN` for what the list lacks.

    Both are text (n, results), without repetitions but for what stands for no result.
    """
    ordered = np.full(answers.shape, NO_GAIN, np.float32)
    for row, (ids, values, best) in enumerate(zip(items, gains, answers, strict=True)):
        gain_of = dict(zip(ids.tolist(), values.tolist(), strict=True))
        ordered[row] = [gain_of.get(item, NO_GAIN) for item in best.tolist()]
    return ordered


def discounted(ordered: np.ndarray, k: int = K) -> np.ndarray:
    """Sum of the first `k` gains, each by log2(1 + place): float64 (n,)."""
    first = np.maximum(ordered[:, :k], 0)
    return np.asarray(first @ (1 / np.log2(np.arange(first.shape[1]) + 2)), np.float64)


def slices(rows: pl.DataFrame, searches: pl.DataFrame) -> pl.DataFrame:
    """Slices of each list of `rows`, a row for each in the order of `features.lists`.

    Columns:
    - list_length (Enum of `LENGTHS`).
    - query_searches (Enum of `SEARCHES`): how often training saw the query. `searches` has the
      columns query and searches.
    """
    rows = (
        judged(rows).group_by("list", maintain_order=True).agg(pl.first("query"), length=pl.len())
    )
    rows = rows.join(searches, on="query", how="left", maintain_order="left")
    return pl.DataFrame(
        {
            "list_length": bucket(rows["length"], LENGTHS),
            "query_searches": bucket(rows["searches"].fill_null(0), SEARCHES),
        }
    )
