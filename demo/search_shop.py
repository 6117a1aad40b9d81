"""A simulated shop's searches: raw lines of `searches`, and a season that changes what is wanted.

Each query finds the same articles day after day, and a search shows some of them. Before the season
customers want what sells; from then on they want what is new. How well an article fits the words of
the query, its price and its rating count as much as before.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from demo.shop import START_MS
from demo.visitors import examination
from kreislauf.clock import DAY_MS

MEANS = np.array([0.5, 3.5, 2.5, 3.8, 4.0])
"""Mean of each feature of a result, of some the log: how well it fits the words, 0 to 1; price
(log); articles sold in the last week (log); rating, 1 to 5; days since it came (log)."""
DEVIATIONS = np.array([0.22, 0.8, 1.2, 0.6, 1.2])
SKEWED = np.array([False, True, True, False, True])
"""Features of which the log counts."""
BEFORE = np.array([0.6, -0.4, 1.8, 0.4, 0.0])
"""What a standard deviation of each feature is worth to customers."""
SEASON = np.array([0.6, -0.4, 0.0, 0.4, -1.8])
"""The same once the season has changed."""
NOISE = 0.5
"""Standard deviation of what is worth something for no reason that a feature shows."""
UNRATED = 0.15
"""Share of the articles without a rating."""
FOUND = 30
"""Articles that a query finds."""
FEWEST = 4
MOST = 12
"""Most results of a search."""
JUDGED = 0.5
"""Share of the searches that people have judged; of the others it is known what customers did."""
BEST = 3
"""Highest grade."""


@dataclass(frozen=True)
class SearchShop:
    """Size and history of the shop."""

    searches_per_day: int = 600
    queries: int = 700
    """Queries that are asked, the first ones most often."""
    articles: int = 1_000
    change_day: int = 9
    """Day on which the season changes."""
    seed: int = 0

    @cached_property
    def catalogue(self) -> np.ndarray:
        """Price, sales, rating and age of each article: (articles, 4), NaN without a rating."""
        rng = np.random.default_rng([self.seed, 0])
        draws = MEANS[1:] + DEVIATIONS[1:] * rng.normal(size=(self.articles, 4))
        values = np.where(SKEWED[1:], np.exp(draws), draws.clip(1, 5)).round(2)
        values[rng.random(self.articles) < UNRATED, 2] = np.nan
        return values

    @cached_property
    def articles_of(self) -> np.ndarray:
        """Numbers of the articles that each query finds: (queries, `FOUND`)."""
        rng = np.random.default_rng([self.seed, 1])
        return np.array([rng.permutation(self.articles)[:FOUND] for _ in range(self.queries)])

    @cached_property
    def fits(self) -> np.ndarray:
        """How well each of these fits the words of the query, 0 to 1: (queries, `FOUND`)."""
        return np.random.default_rng([self.seed, 2]).beta(2, 2, self.articles_of.shape).round(3)

    def lines(self, first: int, last: int) -> list[dict]:
        """Searches of days [first, last), as raw lines."""
        return [line for day in range(first, last) for line in self.of_day(day)]

    def of_day(self, day: int) -> list[dict]:
        """Searches of a day, evenly spread over it."""
        rng = np.random.default_rng([self.seed, 3, day])
        weights = SEASON if day >= self.change_day else BEFORE
        searches = []
        for number in range(self.searches_per_day):
            query = int(self.queries * rng.random() ** 1.5)
            searches.append(
                {
                    "search": f"{day}-{number}",
                    "query": f"query {query}",
                    "ts": START_MS + day * DAY_MS + number * DAY_MS // self.searches_per_day,
                    "results": self.results(query, weights, rng),
                }
            )
        return searches

    def results(self, query: int, weights: np.ndarray, rng: np.random.Generator) -> list[dict]:
        """The results of a search, those that fit best first, as people judge them or as customers
        take them."""
        count = int(rng.integers(FEWEST, MOST + 1))
        chosen = rng.permutation(FOUND)[:count]
        chosen = chosen[np.argsort(-self.fits[query, chosen])]
        articles = self.articles_of[query, chosen]
        features = np.column_stack([self.fits[query, chosen], self.catalogue[articles]])
        worth = standardised(features) @ weights + rng.normal(0, NOISE, count)
        grades = np.clip(np.floor(worth), 0, BEST).astype(int)
        positions: Sequence[int | None] = [None] * count
        if rng.random() >= JUDGED:
            is_seen = rng.random(count) < examination(count)
            grades = np.where(is_seen, grades, 0)
            positions = range(1, count + 1)
        return [
            {
                "item": f"SKU-{articles[i]}",
                "features": [None if np.isnan(value) else float(value) for value in features[i]],
                "grade": int(grades[i]),
                "position": positions[i],
            }
            for i in range(count)
        ]


def standardised(features: np.ndarray) -> np.ndarray:
    """Features (n, 5), of some the logs, in deviations from their means; 0 where one is missing."""
    values = np.where(SKEWED, np.log(np.maximum(features, 0.01)), features)
    return np.nan_to_num((values - MEANS) / DEVIATIONS)
