"""Searches of a made-up shop: what is cheap, near and well liked is right for a query."""

import msgspec
import numpy as np
import polars as pl

from models.search_ranker.model_type import SearchRanker
from models.search_ranker.schema import RawSearch

DAY = 86_400_000
START = 1_700_000_000_000
WEIGHTS = np.array([1.0, -1.0, 0.7, 0.0, 0.0])
"""What each feature is worth; the last two are noise."""
BRANDS = 9
"""Brands of the items, which are worth nothing; one in nine has none."""
QUERIES = 1_000
"""Queries that are asked, the first ones most often."""


def lines(first: int, last: int, a_day: int, weights: np.ndarray = WEIGHTS) -> list[dict]:
    """Searches of days [first, last), `a_day` of each, as lines of the table."""
    searches = []
    for day in range(first, last):
        rng = np.random.default_rng(day)
        for number in range(a_day):
            results = rng.integers(2, 15)
            values = rng.normal(size=(results, len(weights))).round(3)
            noisy = values @ weights + rng.normal(scale=0.5, size=results)
            grades = np.clip(np.floor(noisy + 1), 0, 4).astype(int)
            # Money has a long tail, and one value in ten is missing.
            values[:, 0] = np.exp(values[:, 0]).round(3)
            gaps = rng.random(values.shape) < 0.1
            items = rng.choice(500, results, replace=False)
            searches.append(
                {
                    "search": f"{day}-{number}",
                    "query": f"query {int(QUERIES * rng.random() ** 2)}",
                    "ts": START + day * DAY + number * (DAY // a_day),
                    "results": [
                        {
                            "item": f"SKU ö{items[i]}",
                            "features": [
                                None if gap else float(value)
                                for value, gap in zip(values[i], gaps[i], strict=True)
                            ],
                            "grade": int(grades[i]),
                            "position": i + 1 if number % 2 else None,
                            "categories": ["shoes", f"brand ö{brand}" if brand else None],
                        }
                        for i, brand in enumerate((items % BRANDS).tolist())
                    ],
                }
            )
    return searches


def rows(first: int, last: int, a_day: int) -> pl.DataFrame:
    """The same as rows of the table."""
    decoded = msgspec.convert(lines(first, last, a_day), list[RawSearch])
    return SearchRanker.table.unfold(decoded).drop("line")
