"""Rows of `events` to prefixes (one per event that can be predicted) and to what is known of
articles and their pairs.

numpy and Polars only.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl

from models.session_recommender.schema import EVENT_TYPES

LENGTH = 20
"""Events of a session that the model looks at, the newest ones."""
PADDING = -1
"""Fills `article_ids` where a session has fewer events, and answers where the catalogue has fewer
articles."""
INPUTS = ("article_ids", "types", "times")
"""Of the ONNX file, int64 (batch, LENGTH), oldest event first: raw ids; 0 click, 1 cart, 2 order;
ms since 1970."""
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
        return Events(
            self.session[mask], self.aid[mask], self.ts[mask], self.kind[mask], self.position[mask]
        )

    def started(self) -> np.ndarray:
        """Time of the session's first event, for each event: int64 ms of shape (events,)."""
        return self.ts[np.arange(len(self)) - self.position]


def events(rows: pl.DataFrame) -> Events:
    """Sorts rows of the table (any order) by session, then time; ties by article and type, so that
    the order is one."""
    rows = rows.with_columns(pl.col("type").cast(pl.Enum(EVENT_TYPES))).sort(
        "session", "ts", "aid", "type"
    )
    session, aid, ts = (rows[c].to_numpy() for c in ("session", "aid", "ts"))
    kind = rows["type"].to_physical().to_numpy().astype(np.int64)
    index = np.arange(len(rows))
    first = np.r_[True, session[1:] != session[:-1]] if len(rows) else np.zeros(0, bool)
    return Events(session, aid, ts, kind, index - np.maximum.accumulate(np.where(first, index, 0)))


def prefixes(e: Events, values: np.ndarray, padding: int) -> tuple[np.ndarray, np.ndarray]:
    """Each event but a session's first is a label, and the at most `LENGTH` events before it are
    its input.

    `values` (events,) is what to collect, such as article ids. Returns inputs int64 (n, LENGTH),
    oldest first and then `padding`, and the position in `e` of each label, int64 (n,).
    """
    label = np.flatnonzero(e.position > 0)
    length = np.minimum(e.position[label], LENGTH)
    column = np.arange(LENGTH)
    index = (label - length)[:, None] + np.minimum(column, length[:, None] - 1)
    return np.where(column < length[:, None], values[index], padding).astype(np.int64), label


@dataclass(frozen=True)
class Catalogue:
    """Raw article ids and their rows in every table of the model.

    `ids` int64 (articles,), ascending. The tables have `size` rows: the articles, then rows that
    stand for no article, at least one and so many that the best `LENGTH` always exist. The last
    one, `nothing`, is unknown and padding alike.
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
    """`rows` with `popularity`, log(1 + `seen`) of the article in `known` (columns aid, seen), null
    where it is not."""
    ids = known["aid"]
    popularity = known["seen"].log1p().cast(pl.Float32)
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
