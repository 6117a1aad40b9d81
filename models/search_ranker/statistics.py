"""What is kept of a training's rows, and what of each row is watched for drift. Polars only."""

import polars as pl

from models.search_ranker.schema import FEATURES

MAX_QUERIES = 100_000
"""Maximum queries whose frequency is kept, the most frequent ones."""
MAX_CATEGORIES = 10_000
"""Maximum categories that are kept, the most frequent ones of all columns."""
LARGEST_LEVEL = 4.0
"""Deviations from the mean beyond which a feature counts no more."""
SMALLEST_DEVIATION = 1e-6
"""Least deviation that a feature is divided by."""


def profile(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Searches of each query, the features' statistics, and the categories.

    A row is a query, with `query` and `searches`, or a category, with `column` and `category`. The
    first one is neither. It holds in lists of `FEATURES` the `low`, `high`, `mean` and `deviation`
    of each feature, null where there was none.
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
    return pl.concat([features, queries, frequent_categories(rows)], how="diagonal")


def frequent_categories(rows: pl.LazyFrame) -> pl.LazyFrame:
    """The most frequent categories: `column`, from 0, and `category`."""
    place = pl.int_ranges(pl.col("categories").list.len(), dtype=pl.Int64)
    single = rows.select(column=place, category=pl.col("categories"))
    single = single.explode("column", "category").drop_nulls()
    counted = single.group_by("column", "category").agg(results=pl.len())
    counted = counted.sort(["results", "column", "category"], descending=[True, False, False])
    return counted.head(MAX_CATEGORIES).drop("results")


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
    missing_category: list[pl.Expr] = []
    unseen_category: list[pl.Expr] = []
    for i, values in categories_seen(seen).items():
        missing_category.append(category(i).is_null())
        unseen_category.append(~category(i).is_in(values.implode()))
    return rows.select(
        "grade",
        missing_categories=share(missing_category),
        unseen_categories=share(unseen_category),
        missing_features=share(missing),
        outside=share(outside),
        level=share(levels),
        unseen_query=~pl.col("query").is_in(seen["query"].drop_nulls().implode()),
    )


def categories_seen(seen: pl.DataFrame) -> dict[int, pl.Series]:
    """The categories of a `profile` by their column; none for a version of before there were
    any."""
    if "category" not in seen.columns:
        return {}
    by_column = seen.drop_nulls("category").partition_by("column", as_dict=True)
    return {column: values["category"] for (column,), values in sorted(by_column.items())}


def feature(number: int) -> pl.Expr:
    """One feature, null where it is missing."""
    return pl.col("features").list.get(number, null_on_oob=True)


def category(number: int) -> pl.Expr:
    """One category, null where it is missing."""
    return pl.col("categories").list.get(number, null_on_oob=True)


def share(columns: list[pl.Expr]) -> pl.Expr:
    """Mean of the columns that are not null, 0 where there are none."""
    numbers = [column.cast(pl.Float64) for column in columns] or [pl.lit(0.0)]
    return pl.mean_horizontal(numbers).fill_null(0.0)
