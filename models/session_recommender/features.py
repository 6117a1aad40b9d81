"""Rows of `events` to prefixes (one per click that can be predicted) and to a co-visitation table; numpy and Polars."""

from dataclasses import dataclass

import numpy as np
import polars as pl

LENGTH = 20
"""Events of a session that the model looks at, the newest ones."""
PADDING = -1
"""Fills `article_ids` where a session has fewer events, and answers where the catalogue has fewer articles."""
NEIGHBOURS = 64
"""Articles that the table remembers for each article."""
DISTANCE = 10
"""Two events of a session that are further apart do not count as seen together."""
DAY_MS = 86_400_000


@dataclass(frozen=True)
class Events:
    """Events in the order of (session, time), as parallel arrays of shape (events,)."""

    session: np.ndarray
    aid: np.ndarray
    ts: np.ndarray
    """ms since 1970 UTC"""
    position: np.ndarray
    """0 for the first event of a session"""

    def __len__(self) -> int:
        return len(self.session)

    def take(self, mask: np.ndarray) -> "Events":
        """The events where `mask` is true; it must keep or drop sessions whole."""
        return Events(self.session[mask], self.aid[mask], self.ts[mask], self.position[mask])

    def started(self) -> np.ndarray:
        """Time of the session's first event, for each event: int64 ms of shape (events,)."""
        return self.ts[np.arange(len(self)) - self.position]


def events(rows: pl.DataFrame) -> Events:
    """Sorts rows of the table (any order) by session, then time; ties by article and type, so that the order is one."""
    rows = rows.sort("session", "ts", "aid", "type")
    session, aid, ts = (rows[c].to_numpy() for c in ("session", "aid", "ts"))
    index = np.arange(len(rows))
    first = np.r_[True, session[1:] != session[:-1]] if len(rows) else np.zeros(0, bool)
    return Events(session, aid, ts, index - np.maximum.accumulate(np.where(first, index, 0)))


def prefixes(e: Events, values: np.ndarray, padding: int) -> tuple[np.ndarray, np.ndarray]:
    """Each event but a session's first is a label, and the at most `LENGTH` events before it are its input.

    `values` (events,) is what to collect, such as article ids. Returns inputs int64 (n, LENGTH), oldest first and then
    `padding`, and the position in `e` of each label, int64 (n,).
    """
    label = np.flatnonzero(e.position > 0)
    length = np.minimum(e.position[label], LENGTH)
    column = np.arange(LENGTH)
    index = (label - length)[:, None] + np.minimum(column, length[:, None] - 1)
    return np.where(column < length[:, None], values[index], padding).astype(np.int64), label


@dataclass(frozen=True)
class Catalogue:
    """Raw article ids and their rows in every table of the model.

    `ids` int64 (articles,), ascending. The tables have `size` rows: the articles, then rows that stand for no article,
    at least one and so many that the best `LENGTH` always exist. The last one, `nothing`, is unknown and padding alike.
    """

    ids: np.ndarray

    @property
    def size(self) -> int:
        return max(len(self.ids), LENGTH) + 1

    @property
    def nothing(self) -> int:
        return self.size - 1

    def rows(self, aid: np.ndarray) -> np.ndarray:
        """Raw ids of any shape to rows, `nothing` where unknown; int64."""
        if not len(self.ids):
            return np.full(aid.shape, self.nothing)
        index = np.minimum(np.searchsorted(self.ids, aid), len(self.ids) - 1)
        return np.where(self.ids[index] == aid, index, self.nothing)

    def raw(self) -> np.ndarray:
        """Raw id of each row, int64 (size,), `PADDING` where there is no article."""
        return np.r_[self.ids, np.full(self.size - len(self.ids), PADDING)].astype(np.int64)


@dataclass(frozen=True)
class Covisitation:
    """What was seen together; rows of the catalogue throughout."""

    neighbours: np.ndarray
    """int64 (size, NEIGHBOURS), best first, then `nothing`."""
    weights: np.ndarray
    """float32 (size, NEIGHBOURS), 0 where there is no neighbour."""
    popularity: np.ndarray
    """float32 (size,): events of each article, older ones count less."""


def recency(ts: np.ndarray, days: float) -> np.ndarray:
    """Weight of events that took place at `ts` (ms), 1 for the newest and falling by e every `days`."""
    return np.exp((ts - ts.max(initial=0)) / (DAY_MS * days))


def pairs(e: Events, row: np.ndarray, weight: np.ndarray, size: int, back: float, fade: float) -> pl.DataFrame:
    """Sums of `weight` over pairs of different articles in one session, columns a, b, w: seen `a`, then suggest `b`.

    A pair counts `fade` times less with every event in between, and `back` times less against the order of time.
    """
    parts = []
    for gap in range(1, DISTANCE + 1):
        later = np.flatnonzero(e.position >= gap)
        later = later[row[later] != row[later - gap]]
        a, b, w = row[later - gap], row[later], weight[later] * fade ** (gap - 1)
        parts += [pl.DataFrame({"key": a * size + b, "w": w}), pl.DataFrame({"key": b * size + a, "w": w * back})]
    summed = pl.concat(parts).group_by("key").agg(pl.col("w").sum()).sort("key")
    return summed.select(a=pl.col("key") // size, b=pl.col("key") % size, w="w")


def covisit(e: Events, catalogue: Catalogue) -> Covisitation:
    """The co-visitation table of `e`. Constants were tuned on Diginetica's first 155,000 sessions.

    Item-to-item co-counts with decay in time and distance are described as strong baselines by Ludewig and Jannach,
    "Evaluation of session-based recommendation algorithms", 2018.
    """
    row, weight = catalogue.rows(e.aid), recency(e.ts, 60)
    popularity = np.bincount(row, weights=weight, minlength=catalogue.size)
    found = pairs(e, row, weight, catalogue.size, back=0.7, fade=0.7)
    a, b, w = (found[c].to_numpy() for c in ("a", "b", "w"))
    w = w / popularity[a] ** 0.6 / popularity[b] ** 0.1
    order = np.lexsort((b, -w, a))
    a, b, w = a[order], b[order], w[order]
    rank = np.arange(len(a)) - np.searchsorted(a, a)
    keep = rank < NEIGHBOURS
    neighbours = np.full((catalogue.size, NEIGHBOURS), catalogue.nothing)
    weights = np.zeros(neighbours.shape, np.float32)
    neighbours[a[keep], rank[keep]], weights[a[keep], rank[keep]] = b[keep], w[keep]
    return Covisitation(neighbours, weights, popularity.astype(np.float32))
