"""The co-visitation table: what was seen together, and how."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from models.session_recommender.features import DAY_MS, Catalogue, Events

NEIGHBOURS = 64
"""Maximum articles that are remembered for each article."""
DISTANCE = 10
"""Maximum distance of two events of a session that count as seen together."""
CREDIT = (0.6, 0.9)
"""Weight of an event as a share of the next one's: for its neighbours, and for itself."""
FLOOR = 1e-3
"""Co-visitation that hardly counts: scores are logarithms of 1 + co-visitation / FLOOR."""
NEVER = -1e9
"""Score of a row that is no article."""
PAIRS = 6
"""Numbers that describe a pair of articles."""
ARTICLES = 8
"""Numbers that describe an article."""
RECENT_DAYS = (1, 3, 10)
"""Days whose events of an article are counted."""


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
    """float16 (size, NEIGHBOURS, PAIRS): how both were seen together; 0 without neighbour."""
    articles: np.ndarray
    """float32 (size, ARTICLES): how often and how lately an article was seen."""


def recency(ts: np.ndarray, days: float) -> np.ndarray:
    """Weight of events at `ts` (ms), 1 for the newest and falling by e every `days`."""
    return np.exp((ts - ts.max(initial=0)) / (DAY_MS * days))


def pairs(e: Events, row: np.ndarray, size: int) -> pl.DataFrame:
    """Sums over ordered pairs of different articles in one session: `a` was seen, `b` is suggested.

    Rows are sorted by a, b. `w` is the weight of the table: it falls by e in 60 days, by 0.7 with
    every event in between, and by 0.7 against the order of time. `recent` falls by e in 7 days, and
    as `w` with distance. `together` counts all pairs; `next` and `before` count those where `b`
    came directly after, or before, `a`.
    """
    slow = recency(e.ts, 60)
    fast = recency(e.ts, 7)
    frames = []
    for gap in range(1, DISTANCE + 1):
        later = np.flatnonzero(e.position >= gap)
        later = later[row[later] != row[later - gap]]
        a = row[later - gap]
        b = row[later]
        fade = 0.7 ** (gap - 1)
        adjacent = np.float32(gap == 1)
        w = (slow[later] * fade).astype(np.float32)
        recent = (fast[later] * fade).astype(np.float32)
        forward = {"key": a * size + b, "w": w, "recent": recent}
        backward = {"key": b * size + a, "w": w * np.float32(0.7), "recent": recent}
        is_next = pl.lit(adjacent, pl.Float32)
        never = pl.lit(0, pl.Float32)
        frames.append(pl.DataFrame(forward).with_columns(next=is_next, before=never))
        frames.append(pl.DataFrame(backward).with_columns(next=never, before=is_next))
    sums = pl.col("w", "recent", "next", "before").cast(pl.Float64).sum()
    together = pl.len().cast(pl.Float64)
    summed = pl.concat(frames).group_by("key").agg(sums, together=together).sort("key")
    return summed.with_columns(a=pl.col("key") // size, b=pl.col("key") % size)


def covisit(e: Events, catalogue: Catalogue) -> Covisitation:
    """The co-visitation table of `e`. Constants were tuned on Diginetica's first 155,000 sessions.

    Item-to-item co-counts with decay in time and distance are described as strong baselines by
    Ludewig and Jannach, "Evaluation of session-based recommendation algorithms", 2018. An article
    of the catalogue that `e` does not have gets popularity 0 and no neighbours.
    """
    row = catalogue.rows(e.aid)
    popularity = np.bincount(row, weights=recency(e.ts, 60), minlength=catalogue.size)
    seen = np.bincount(row, minlength=catalogue.size)
    summed = pairs(e, row, catalogue.size)
    a, b, w = (summed[column].to_numpy() for column in ("a", "b", "w"))
    w = w / popularity[a] ** 0.6 / popularity[b] ** 0.1
    order = np.lexsort((b, -w, a))
    rank = np.arange(len(a)) - np.searchsorted(a, a)
    order = order[rank < NEIGHBOURS]
    rank = rank[rank < NEIGHBOURS]
    place = (a[order], rank)
    neighbours = np.full((catalogue.size, NEIGHBOURS), catalogue.nothing)
    weights = np.zeros(neighbours.shape, np.float32)
    together = np.zeros((*neighbours.shape, PAIRS), np.float16)
    neighbours[place] = b[order]
    weights[place] = w[order]
    together[place] = _pair_features(summed[order], w[order], seen[a[order]], seen[b[order]])
    articles = _article_features(e, row, seen)
    return Covisitation(neighbours, weights, popularity.astype(np.float32), together, articles)


def _pair_features(
    summed: pl.DataFrame, w: np.ndarray, seen_a: np.ndarray, seen_b: np.ndarray
) -> np.ndarray:
    """Numbers of each pair, float (n, PAIRS), of the order of 1."""
    columns = ("recent", "next", "before", "together")
    recent, after, before, together = (summed[column].to_numpy() for column in columns)
    share = 10 * after / (seen_a + 1)
    cosine = 5 * together / np.sqrt((seen_a + 1.0) * (seen_b + 1))
    return np.stack(
        [np.log1p(50 * w), np.log1p(recent), np.log1p(after), np.log1p(before), share, cosine], 1
    )


def _article_features(e: Events, row: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Numbers of each article, float32 (size, ARTICLES).

    They are logs of its events, ever and in the newest days, of days since the first and the last,
    and of returns in the same session. The last is the share of returns, drawn towards 5 % where
    the article was hardly seen.
    """
    now = e.ts.max(initial=0)
    size = len(seen)
    first = np.full(size, now)
    last = np.zeros(size, np.int64)
    np.minimum.at(first, row, e.ts)
    np.maximum.at(last, row, e.ts)
    lately = []
    for recent in RECENT_DAYS:
        is_recent = e.ts > now - recent * DAY_MS
        lately.append(np.bincount(row, weights=is_recent, minlength=size))
    days = [np.where(seen > 0, now - ts, 0) / DAY_MS for ts in (first, last)]
    visit = np.cumsum(e.position == 0) * size + row
    is_return = np.ones(len(e), bool)
    is_return[np.unique(visit, return_index=True)[1]] = False
    returns = np.bincount(row, weights=is_return, minlength=size)
    share = (returns + 1) / (seen + 20)
    return np.stack([*np.log1p([seen, *lately, *days, returns]), share], 1).astype(np.float32)
