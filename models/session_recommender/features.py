"""Rows of `events` to prefixes (one per event that can be predicted) and to what is known of articles and their pairs.

numpy and Polars only.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl

from models.session_recommender.schema import EVENT_TYPES

LENGTH = 20
"""Events of a session that the model looks at, the newest ones."""
PADDING = -1
"""Fills `article_ids` where a session has fewer events, and answers where the catalogue has fewer articles."""
INPUTS = ("article_ids", "types", "times")
"""Of the ONNX file, int64 (batch, LENGTH), oldest event first: raw ids; 0 click, 1 cart, 2 order; ms since 1970."""
NEIGHBOURS = 64
"""Articles that are remembered for each article."""
DISTANCE = 10
"""Two events of a session that are further apart do not count as seen together."""
CREDIT = (0.6, 0.9)
"""How much less an event counts than the next one: for its neighbours, and for itself as an answer."""
FLOOR = 1e-3
"""Co-visitation below this hardly counts: its logarithm is what is added."""
NEVER = -1e9
"""Score of a row that is no article."""
DENSE = 8
"""With less than so many times as many ids as articles, a table of all ids is small."""
DAY_MS = 86_400_000


@dataclass(frozen=True)
class Events:
    """Events in the order of (session, time), as parallel arrays of shape (events,)."""

    session: np.ndarray
    aid: np.ndarray
    ts: np.ndarray
    """ms since 1970 UTC"""
    kind: np.ndarray
    """0 click, 1 cart, 2 order"""
    position: np.ndarray
    """0 for the first event of a session"""

    def __len__(self) -> int:
        return len(self.session)

    def take(self, mask: np.ndarray) -> "Events":
        """The events where `mask` is true; it must keep or drop sessions whole."""
        return Events(self.session[mask], self.aid[mask], self.ts[mask], self.kind[mask], self.position[mask])

    def started(self) -> np.ndarray:
        """Time of the session's first event, for each event: int64 ms of shape (events,)."""
        return self.ts[np.arange(len(self)) - self.position]


def events(rows: pl.DataFrame) -> Events:
    """Sorts rows of the table (any order) by session, then time; ties by article and type, so that the order is one."""
    rows = rows.with_columns(pl.col("type").cast(pl.Enum(EVENT_TYPES))).sort("session", "ts", "aid", "type")
    session, aid, ts = (rows[c].to_numpy() for c in ("session", "aid", "ts"))
    kind = rows["type"].to_physical().to_numpy().astype(np.int64)
    index = np.arange(len(rows))
    first = np.r_[True, session[1:] != session[:-1]] if len(rows) else np.zeros(0, bool)
    return Events(session, aid, ts, kind, index - np.maximum.accumulate(np.where(first, index, 0)))


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


def with_popularity(rows: pl.LazyFrame, known: pl.DataFrame) -> pl.LazyFrame:
    """`rows` with `popularity`, log(1 + `seen`) of the article in `known` (columns aid, seen), null where it is not."""
    ids, popularity = known["aid"], known["seen"].log1p().cast(pl.Float32)
    if not known.height or ids.min() < 0 or ids.max() >= DENSE * known.height:  # type: ignore[operator]
        seen = pl.LazyFrame({"aid": ids, "popularity": popularity})
        return rows.join(seen, on="aid", how="left", maintain_order="left")
    # Half the work of a join, and its hash table would be as large.
    table = np.full(int(ids.max()) + 2, np.nan, np.float32)  # type: ignore[arg-type]
    table[ids.to_numpy()] = popularity.to_numpy()

    def look_up(aid: pl.Series) -> pl.Series:
        known = aid.is_between(0, len(table) - 2).to_numpy()
        return pl.Series(table[np.where(known, aid.to_numpy(), len(table) - 1)], nan_to_null=True)

    looked = pl.col("aid").map_batches(look_up, return_dtype=pl.Float32, is_elementwise=True)
    return rows.with_columns(popularity=looked)


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
    """float16 (size, NEIGHBOURS, PAIRS): how an article and its neighbour were seen together; 0 without neighbour."""
    articles: np.ndarray
    """float32 (size, ARTICLES): how often and how lately an article was seen."""


PAIRS = 6
ARTICLES = 8
RECENT_DAYS = (1, 3, 10)


def recency(ts: np.ndarray, days: float) -> np.ndarray:
    """Weight of events that took place at `ts` (ms), 1 for the newest and falling by e every `days`."""
    return np.exp((ts - ts.max(initial=0)) / (DAY_MS * days))


def pairs(e: Events, row: np.ndarray, size: int) -> pl.DataFrame:
    """Sums over ordered pairs of different articles in one session: seen `a`, then suggest `b`; sorted by a, b.

    `w` is the weight of the table: it falls by e in 60 days, by 0.7 with every event in between, and by 0.7 against the
    order of time. `recent` falls by e in 7 days, and the same with distance; `together` counts all pairs; `next` and
    `before` those where `b` came directly after, or before, `a`.
    """
    slow, fast = recency(e.ts, 60), recency(e.ts, 7)
    parts = []
    for gap in range(1, DISTANCE + 1):
        later = np.flatnonzero(e.position >= gap)
        later = later[row[later] != row[later - gap]]
        a, b, fade, beside = row[later - gap], row[later], 0.7 ** (gap - 1), np.float32(gap == 1)
        w, recent = (slow[later] * fade).astype(np.float32), (fast[later] * fade).astype(np.float32)
        for key, back in ((a * size + b, 1.0), (b * size + a, 0.7)):
            columns = {"key": key, "w": w * np.float32(back), "recent": recent}
            after, before = (beside, 0) if back == 1.0 else (0, beside)
            parts.append(
                pl.DataFrame(columns).with_columns(next=pl.lit(after, pl.Float32), before=pl.lit(before, pl.Float32))
            )
    sums = pl.col("w", "recent", "next", "before").cast(pl.Float64).sum()
    summed = pl.concat(parts).group_by("key").agg(sums, together=pl.len().cast(pl.Float64)).sort("key")
    return summed.with_columns(a=pl.col("key") // size, b=pl.col("key") % size)


def covisit(e: Events, catalogue: Catalogue) -> Covisitation:
    """The co-visitation table of `e`. Constants were tuned on Diginetica's first 155,000 sessions.

    Item-to-item co-counts with decay in time and distance are described as strong baselines by Ludewig and Jannach,
    "Evaluation of session-based recommendation algorithms", 2018. An article of the catalogue that `e` does not have is
    known to nobody: popularity 0 and no neighbours.
    """
    row = catalogue.rows(e.aid)
    popularity = np.bincount(row, weights=recency(e.ts, 60), minlength=catalogue.size)
    seen = np.bincount(row, minlength=catalogue.size)
    found = pairs(e, row, catalogue.size)
    a, b, w = (found[c].to_numpy() for c in ("a", "b", "w"))
    w = w / popularity[a] ** 0.6 / popularity[b] ** 0.1
    order = np.lexsort((b, -w, a))
    rank = np.arange(len(a)) - np.searchsorted(a, a)
    order, rank = order[rank < NEIGHBOURS], rank[rank < NEIGHBOURS]
    at = a[order], rank
    neighbours = np.full((catalogue.size, NEIGHBOURS), catalogue.nothing)
    weights = np.zeros(neighbours.shape, np.float32)
    together = np.zeros((*neighbours.shape, PAIRS), np.float16)
    neighbours[at], weights[at] = b[order], w[order]
    together[at] = _pair_features(found[order], w[order], seen[a[order]], seen[b[order]])
    return Covisitation(neighbours, weights, popularity.astype(np.float32), together, _article_features(e, row, seen))


def _pair_features(found: pl.DataFrame, w: np.ndarray, seen_a: np.ndarray, seen_b: np.ndarray) -> np.ndarray:
    """(n, PAIRS), of the order of 1."""
    recent, after, before, together = (found[c].to_numpy() for c in ("recent", "next", "before", "together"))
    share, cosine = 10 * after / (seen_a + 1), 5 * together / np.sqrt((seen_a + 1.0) * (seen_b + 1))
    return np.stack([np.log1p(50 * w), np.log1p(recent), np.log1p(after), np.log1p(before), share, cosine], 1)


def _article_features(e: Events, row: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """(size, ARTICLES): log of counts, ever and in the newest days, of days since first and last seen, and of returns
    to the article in the same session; and their share, drawn towards 5 % where the article was hardly seen."""
    now, size = e.ts.max(initial=0), len(seen)
    first, last = np.full(size, now), np.zeros(size, np.int64)
    np.minimum.at(first, row, e.ts)
    np.maximum.at(last, row, e.ts)
    lately = [np.bincount(row, weights=e.ts > now - days * DAY_MS, minlength=size) for days in RECENT_DAYS]
    days = [np.where(seen > 0, now - ts, 0) / DAY_MS for ts in (first, last)]
    return_ = np.ones(len(e), bool)
    return_[np.unique(np.cumsum(e.position == 0) * size + row, return_index=True)[1]] = False
    returns = np.bincount(row, weights=return_, minlength=size)
    share = (returns + 1) / (seen + 20)
    return np.stack([*np.log1p([seen, *lately, *days, returns]), share], 1).astype(np.float32)
