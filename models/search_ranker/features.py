"""Rows of `searches` to lists: a list of results is one example, padded to a fixed length.

numpy and Polars only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl

from models import text
from models.search_ranker.schema import CATEGORIES, FEATURES, RESULTS

NO_ITEM = ""
"""What stands where a list has no further result."""
NO_CATEGORY = ""
"""What stands for a category that is missing."""
INPUTS = ("items", "features", "categories")
"""Inputs of the ONNX file: ids, text (batch, RESULTS); raw values, float32 (batch, RESULTS,
FEATURES), NaN where one is missing; and text (batch, RESULTS, CATEGORIES)."""
ONE_LIST = ("query", "ts", "search")
"""Columns that are the same in all rows of a list."""
NO_GAIN = -1.0
"""Gain of what is no result."""
NOWHERE = -1e38
"""Score of what is no result; it comes last."""
MAX_WEIGHT = 10.0
"""Most that a click counts for the place at which it was made."""


class Candidate(NamedTuple):
    """A result of a request."""

    item: str
    features: list[float]
    """NaN where a value is missing."""
    categories: list[str]
    """`NO_CATEGORY` where one is missing."""


@dataclass(frozen=True)
class Lists:
    """Lists of results with the gain of each."""

    items: np.ndarray
    """Raw ids, text (n, RESULTS), `NO_ITEM` at the end."""
    features: np.ndarray
    """float32 (n, RESULTS, features), NaN where a value is missing."""
    categories: np.ndarray
    """Text (n, RESULTS, categories), `NO_CATEGORY` where one is missing."""
    gains: np.ndarray
    """float32 (n, RESULTS), `NO_GAIN` where there is no result."""
    targets: np.ndarray
    """float32 (n, RESULTS), what a training learns: grades, weighted as the gains are."""
    queries: np.ndarray
    """Text (n,)."""

    def __len__(self) -> int:
        return len(self.queries)

    @property
    def present(self) -> np.ndarray:
        """Where there is a result, bool (n, RESULTS)."""
        return self.gains >= 0

    def take(self, index: np.ndarray) -> "Lists":
        """The lists at `index` (positions or a boolean mask)."""
        return Lists(
            self.items[index],
            self.features[index],
            self.categories[index],
            self.gains[index],
            self.targets[index],
            self.queries[index],
        )


def weight(position: pl.Expr) -> pl.Expr:
    """What a result counts for the place at which it was shown: the place, at most `MAX_WEIGHT`.

    A customer looks at the result at position k with a chance of about 1 / k. What is seen less
    often has to count more, or a model would learn the order that was shown (Joachims, Swaminathan
    and Schnabel, "Unbiased learning-to-rank with biased feedback", 2017). A judged grade has no
    position, and counts once.
    """
    return position.fill_null(1).clip(1, MAX_WEIGHT)


def placed(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows by query, time and search; a list is cut after `RESULTS`. The column `place`, from 0, is
    added."""
    place = pl.int_range(pl.len(), dtype=pl.Int64).over(ONE_LIST)
    rows = rows.sort(*ONE_LIST, "item").with_columns(place=place)
    return rows.filter(pl.col("place") < RESULTS)


def judged(rows: pl.DataFrame) -> pl.DataFrame:
    """The `placed` rows of lists in which something is right.

    Columns are added: `gain`, weight * (2^grade - 1) as in NDCG; `target`, weight * grade; and
    `list`, the number of the list from 0.
    """
    rows = placed(rows).with_columns(
        gain=weight(pl.col("position")) * (2.0 ** pl.col("grade").cast(pl.Float64) - 1),
        target=weight(pl.col("position")) * pl.col("grade"),
    )
    return numbered(rows.filter(pl.col("gain").max().over(ONE_LIST) > 0))


def numbered(rows: pl.DataFrame) -> pl.DataFrame:
    """`placed` rows with the column `list`, the number of the list from 0."""
    return rows.with_columns(list=(pl.col("place") == 0).cum_sum().cast(pl.Int64) - 1)


def lists(rows: pl.DataFrame, width: int = FEATURES, categories: int = CATEGORIES) -> Lists:
    """The lists of `judged(rows)`, with `width` features and so many categories."""
    rows = judged(rows)
    first = rows.filter(pl.col("place") == 0)
    place = (rows["list"].to_numpy(), rows["place"].to_numpy())
    inputs_of_lists = padded(rows, width, categories)
    gains = np.full((first.height, RESULTS), NO_GAIN, np.float32)
    gains[place] = rows["gain"].to_numpy()
    targets = np.zeros((first.height, RESULTS), np.float32)
    targets[place] = rows["target"].to_numpy()
    return Lists(*inputs_of_lists, gains, targets, text.column(first["query"]))


def padded(
    rows: pl.DataFrame, width: int = FEATURES, categories: int = CATEGORIES
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`items`, `features` and `categories` of the lists, as `Lists` has them, of `numbered`
    rows."""
    place = (rows["list"].to_numpy(), rows["place"].to_numpy())
    count = rows["list"].n_unique()
    items = np.full((count, RESULTS), NO_ITEM, object)
    items[place] = rows["item"].to_numpy()
    features = np.full((count, RESULTS, width), np.nan, np.float32)
    features[place] = table(rows["features"], width)
    words = np.full((count, RESULTS, categories), NO_CATEGORY, object)
    for column in range(categories):
        values = rows["categories"].list.get(column, null_on_oob=True)
        words[(*place, column)] = text.column(values.fill_null(NO_CATEGORY))
    return items, features, words


def table(values: pl.Series, width: int) -> np.ndarray:
    """Features of each result, float32 (n, width): short ones are filled with NaN, long ones
    cut."""
    columns = (values.list.get(i, null_on_oob=True) for i in range(width))
    return np.stack([column.cast(pl.Float32).fill_null(np.nan).to_numpy() for column in columns], 1)


def inputs(requests: Sequence[Sequence[Candidate]]) -> dict[str, np.ndarray]:
    """Inputs of the ONNX file for lists as requests have them."""
    names = np.full((len(requests), RESULTS), NO_ITEM, object)
    values = np.full((len(requests), RESULTS, FEATURES), np.nan, np.float32)
    words = np.full((len(requests), RESULTS, CATEGORIES), NO_CATEGORY, object)
    for i, candidates in enumerate(requests):
        for j, (item, features, categories) in enumerate(candidates):
            names[i, j] = item
            values[i, j, : len(features)] = features
            words[i, j, : len(categories)] = categories
    return dict(zip(INPUTS, (names, values, words), strict=True))
