"""What is kept of a training's rows, and what of each row is watched for drift. Polars only."""

import polars as pl

from models.search_ranker.schema import FEATURES

MAX_QUERIES = 100_000
"""Maximum queries whose frequency is kept, the most frequent ones."""
LARGEST_LEVEL = 4.0
"""Deviations from the mean beyond which a feature counts no more."""
SMALLEST_DEVIATION = 1e-6
"""Least deviation that a feature is divided by."""


def profile(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Searches of each query, and the features' statistics.

    A row is a query, with `query` and `searches`; the first one is none, and holds in lists of
    `FEATURES` the `low`, `high`, `mean` and `deviation` of each feature, null where there was none.
    """
    values = [feature(i).cast(pl.Float64) for i in range(FEATURES)]
    features = rows.select(
        low=pl.concat_list(value.min() for value in values),
        high=pl.concat_list(value.max() for value in values),
        mean=pl.concat_list(value.mean() for value in values),
        deviation=pl.concat_list(value.std() for value in values),
    )
    queries = rows.group_by("query").agg(searches=pl.col("search").n_unique())
    queries = queries.sort(["searches", "query"], descending=[True, False]).head(MAX_QUERIES)
    return pl.concat([features, queries], how="diagonal")


def monitored(rows: pl.LazyFrame, seen: pl.DataFrame) -> pl.LazyFrame:
    """See `SearchRanker.monitored`; `seen` is a `profile`."""
    low, high, mean, deviation = (
        (seen[name].drop_nulls().to_list() or [[None] * FEATURES])[0]
        for name in ("low", "high", "mean", "deviation")
    )
    used = [i for i in range(FEATURES) if mean[i] is not None]
    missing = [feature(i).is_null() for i in used]
    outside = [~feature(i).is_between(low[i], high[i]) for i in used]
    levels = []
    for i in used:
        scaled = (feature(i) - mean[i]) / max(deviation[i] or 0.0, SMALLEST_DEVIATION)
        levels.append(scaled.clip(-LARGEST_LEVEL, LARGEST_LEVEL))
    return rows.select(
        "grade",
        missing_features=share(missing),
        outside=share(outside),
        level=share(levels),
        unseen_query=~pl.col("query").is_in(seen["query"].drop_nulls().implode()),
    )


def feature(number: int) -> pl.Expr:
    """One feature, null where it is missing."""
    return pl.col("features").list.get(number, null_on_oob=True)


def share(columns: list[pl.Expr]) -> pl.Expr:
    """Mean of the columns that are not null, 0 where there are none."""
    numbers = [column.cast(pl.Float64) for column in columns] or [pl.lit(0.0)]
    return pl.mean_horizontal(numbers).fill_null(0.0)
