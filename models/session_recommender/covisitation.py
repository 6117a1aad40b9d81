"""The co-visitation table: what was seen together, and how"""

from dataclasses import dataclass

import numpy as np
import polars as pl

from models.session_recommender.features import DAY_MS, Catalogue, Events

NEIGHBOURS = 64
"""Articles that are remembered for each article."""
DISTANCE = 10
"""Two events of a session that are further apart do not count as seen together."""
CREDIT = (0.6, 0.9)
"""How much less an event counts than the next one: for its neighbours, and for itself as an
answer."""
FLOOR = 1e-3
"""Co-visitation below this hardly counts: its logarithm is what is added."""
NEVER = -1e9
"""Score of a row that is no article."""
PAIRS = 6
ARTICLES = 8
RECENT_DAYS = (1, 3, 10)


@dataclass(frozen=True)
class Covisitation:
    """What was seen together; rows of the catalogue throughout."""

    neighbours: np.ndarray
    """int64 (size, NEIGHBOURS), best first, then `nothing`."""
    weights: np.ndarray
    """float32 (size, NEIGHBOURS), 0 where there is no neighbour."""
    popularity: np.ndarray
    """float32 (size,): events of each article, older ones count less."""
    pairs: np.ndarray
    """float16 (size, NEIGHBOURS, PAIRS): how an article and its neighbour were seen together; 0
    without neighbour."""
    articles: np.ndarray
    """float32 (size, ARTICLES): how often and how lately an article was seen."""


def recency(ts: np.ndarray, days: float) -> np.ndarray:
    """Weight of events that took place at `ts` (ms), 1 for the newest and falling by e every
    `days`."""
    return np.exp((ts - ts.max(initial=0)) / (DAY_MS * days))


def pairs(e: Events, row: np.ndarray, size: int) -> pl.DataFrame:
    """Sums over ordered pairs of different articles in one session: seen `a`, then suggest `b`;
    sorted by a, b.

    `w` is the weight of the table: it falls by e in 60 days, by 0.7 with every event in between,
    and by 0.7 against the order of time. `recent` falls by e in 7 days, and the same with distance;
    `together` counts all pairs; `next` and `before` those where `b` came directly after, or before,
    `a`.
    """
    slow = recency(e.ts, 60)
    fast = recency(e.ts, 7)
    parts = []
    for gap in range(1, DISTANCE + 1):
        later = np.flatnonzero(e.position >= gap)
        later = later[row[later] != row[later - gap]]
        a = row[later - gap]
        b = row[later]
        fade = 0.7 ** (gap - 1)
        beside = np.float32(gap == 1)
        w = (slow[later] * fade).astype(np.float32)
        recent = (fast[later] * fade).astype(np.float32)
        for key, back in ((a * size + b, 1.0), (b * size + a, 0.7)):
            columns = {"key": key, "w": w * np.float32(back), "recent": recent}
            after, before = (beside, 0) if back == 1.0 else (0, beside)
            parts.append(
                pl.DataFrame(columns).with_columns(
                    next=pl.lit(after, pl.Float32), before=pl.lit(before, pl.Float32)
                )
            )
    sums = pl.col("w", "recent", "next", "before").cast(pl.Float64).sum()
    summed = (
        pl.concat(parts).group_by("key").agg(sums, together=pl.len().cast(pl.Float64)).sort("key")
    )
    return summed.with_columns(a=pl.col("key") // size, b=pl.col("key") % size)


def covisit(e: Events, catalogue: Catalogue) -> Covisitation:
    """The co-visitation table of `e`. Constants were tuned on Diginetica's first 155,000 sessions.

    Item-to-item co-counts with decay in time and distance are described as strong baselines by
    Ludewig and Jannach, "Evaluation of session-based recommendation algorithms", 2018. An article
    of the catalogue that `e` does not have is known to nobody: popularity 0 and no neighbours.
    """
    row = catalogue.rows(e.aid)
    popularity = np.bincount(row, weights=recency(e.ts, 60), minlength=catalogue.size)
    seen = np.bincount(row, minlength=catalogue.size)
    found = pairs(e, row, catalogue.size)
    a, b, w = (found[c].to_numpy() for c in ("a", "b", "w"))
    w = w / popularity[a] ** 0.6 / popularity[b] ** 0.1
    order = np.lexsort((b, -w, a))
    rank = np.arange(len(a)) - np.searchsorted(a, a)
    order = order[rank < NEIGHBOURS]
    rank = rank[rank < NEIGHBOURS]
    at = a[order], rank
    neighbours = np.full((catalogue.size, NEIGHBOURS), catalogue.nothing)
    weights = np.zeros(neighbours.shape, np.float32)
    together = np.zeros((*neighbours.shape, PAIRS), np.float16)
    neighbours[at] = b[order]
    weights[at] = w[order]
    together[at] = _pair_features(found[order], w[order], seen[a[order]], seen[b[order]])
    return Covisitation(
        neighbours,
        weights,
        popularity.astype(np.float32),
        together,
        _article_features(e, row, seen),
    )


def _pair_features(
    found: pl.DataFrame, w: np.ndarray, seen_a: np.ndarray, seen_b: np.ndarray
) -> np.ndarray:
    """(n, PAIRS), of the order of 1."""
    recent, after, before, together = (
        found[c].to_numpy() for c in ("recent", "next", "before", "together")
    )
    share = 10 * after / (seen_a + 1)
    cosine = 5 * together / np.sqrt((seen_a + 1.0) * (seen_b + 1))
    return np.stack(
        [np.log1p(50 * w), np.log1p(recent), np.log1p(after), np.log1p(before), share, cosine], 1
    )


def _article_features(e: Events, row: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """(size, ARTICLES): log of counts, ever and in the newest days, of days since first and last
    seen, and of returns to the article in the same session; and their share, drawn towards 5 %
    where the article was hardly seen."""
    now = e.ts.max(initial=0)
    size = len(seen)
    first = np.full(size, now)
    last = np.zeros(size, np.int64)
    np.minimum.at(first, row, e.ts)
    np.maximum.at(last, row, e.ts)
    lately = [
        np.bincount(row, weights=e.ts > now - days * DAY_MS, minlength=size) for days in RECENT_DAYS
    ]
    days = [np.where(seen > 0, now - ts, 0) / DAY_MS for ts in (first, last)]
    return_ = np.ones(len(e), bool)
    return_[np.unique(np.cumsum(e.position == 0) * size + row, return_index=True)[1]] = False
    returns = np.bincount(row, weights=return_, minlength=size)
    share = (returns + 1) / (seen + 20)
    return np.stack([*np.log1p([seen, *lately, *days, returns]), share], 1).astype(np.float32)
