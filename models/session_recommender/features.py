"""Rows of `events` to prefixes, one per event that can be predicted, and to catalogue rows.

numpy and Polars only.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl

from models import text
from models.session_recommender.schema import EVENT_TYPES

LENGTH = 20
"""Maximum events of a session that the model looks at, the newest ones."""
MAX_EVENTS = 500
"""Maximum events of a session that a model learns from and is judged by, the first ones: people
have fewer, and a bot's would outweigh everybody's (benchmarks/bots.py)."""
PADDING = -1
"""Number that fills what short sessions lack, and answers of a small catalogue."""
NO_ID = ""
"""What fills them in place of `PADDING` where ids are text."""
INPUTS = ("article_ids", "types", "times")
"""Inputs of the ONNX file, int64 (batch, LENGTH), oldest event first.

They are raw ids, which may be text; 0 click, 1 cart, 2 order; and ms since 1970.
"""
DENSE = 8
"""Maximum ids per article for which a table of all ids is small."""
DAY_MS = 86_400_000
"""Milliseconds of a day."""


@dataclass(frozen=True)
class Events:
    """Events in the order of (session, time), as parallel arrays of shape (events,)."""

    session: np.ndarray
    """int64, or text"""
    aid: np.ndarray
    """int64, or text"""
    ts: np.ndarray
    """ms since 1970 UTC"""
    kind: np.ndarray
    """0 click, 1 cart, 2 order"""
    position: np.ndarray
    """0 for the first event of a session"""

    def __len__(self) -> int:
        return len(self.session)

    def take(self, mask: np.ndarray) -> "Events":
        """The events where `mask` is true; of a session it keeps the first ones, all or
        none."""
        return Events(
            self.session[mask], self.aid[mask], self.ts[mask], self.kind[mask], self.position[mask]
        )

    @property
    def number(self) -> np.ndarray:
        """Number of each event's session, from 1 in their order: int64 (events,)."""
        return np.cumsum(self.position == 0)

    def started(self) -> np.ndarray:
        """Time of the session's first event, for each event: int64 ms of shape (events,)."""
        return self.ts[np.arange(len(self)) - self.position]


def events(rows: pl.DataFrame) -> Events:
    """Rows of the table by session, then time; article and type decide ties. Of a session the first
    `MAX_EVENTS` are there."""
    rows = rows.with_columns(pl.col("type").cast(pl.Enum(EVENT_TYPES)))
    rows = rows.sort("session", "ts", "aid", "type")
    session, aid, ts = (text.column(rows[column]) for column in ("session", "aid", "ts"))
    kind = rows["type"].to_physical().to_numpy().astype(np.int64)
    index = np.arange(len(rows))
    is_first = np.ones(len(rows), bool)
    is_first[1:] = session[1:] != session[:-1]
    position = index - np.maximum.accumulate(np.where(is_first, index, 0))
    all_events = Events(session, aid, ts, kind, position)
    counts = position < MAX_EVENTS
    if counts.all():
        return all_events
    return all_events.take(counts)


def padding_of(values: np.ndarray) -> int | str:
    """What stands where `values`, which may be text, have nothing."""
    return NO_ID if text.is_text(values) else PADDING


def prefixes(
    e: Events, values: np.ndarray, padding: int | str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Collect the at most `LENGTH` events before each event but a session's first.

    `values` (events,) is what to collect, such as article ids. Returns inputs (n, LENGTH), oldest
    first and then `padding`, by default that of the values, and the position in `e` of each label,
    int64 (n,).
    """
    if padding is None:
        padding = padding_of(values)
    label = np.flatnonzero(e.position > 0)
    return _before(values, label, e.position[label], padding), label


def newest(e: Events, values: np.ndarray) -> np.ndarray:
    """Collect the at most `LENGTH` newest events of each session: (sessions, LENGTH), as
    `prefixes` does."""
    if not len(e):
        return np.empty((0, LENGTH), values.dtype)
    end = np.append(np.flatnonzero(e.position == 0)[1:], len(e))
    return _before(values, end, e.position[end - 1] + 1, padding_of(values))


def _before(
    values: np.ndarray, end: np.ndarray, count: np.ndarray, padding: int | str
) -> np.ndarray:
    """The at most `LENGTH` last of `count` values before each position `end`, (n, LENGTH), oldest
    first and then `padding`."""
    length = np.minimum(count, LENGTH)
    column = np.arange(LENGTH)
    index = (end - length)[:, None] + np.minimum(column, length[:, None] - 1)
    return np.where(column < length[:, None], values[index], padding).astype(values.dtype)


@dataclass(frozen=True)
class Catalogue:
    """Raw article ids and their rows in every table of the model.

    `ids` are int64 or text (articles,), ascending. The tables have `size` rows: the articles, then
    rows that stand for no article, at least one and so many that the best `LENGTH` always exist.
    The last one, `nothing`, is unknown and padding alike.
    """

    ids: np.ndarray

    @property
    def size(self) -> int:
        """Rows of every table."""
        return max(len(self.ids), LENGTH) + 1

    @property
    def nothing(self) -> int:
        """Row of an unknown article and of padding."""
        return self.size - 1

    @classmethod
    def of(cls, e: Events) -> "Catalogue":
        """The articles of these events."""
        return cls(text.distinct(e.aid))

    def rows(self, aid: np.ndarray) -> np.ndarray:
        """Raw ids of any shape to rows, `nothing` where unknown; int64."""
        if not len(self.ids):
            return np.full(aid.shape, self.nothing)
        if text.is_text(self.ids):
            return text.positions(aid, self.ids, self.nothing)
        index = np.minimum(np.searchsorted(self.ids, aid), len(self.ids) - 1)
        return np.where(self.ids[index] == aid, index, self.nothing)

    def raw(self) -> np.ndarray:
        """Raw id of each row, (size,), `padding_of(ids)` where there is no article."""
        rest = np.full(self.size - len(self.ids), padding_of(self.ids), self.ids.dtype)
        return np.concatenate([self.ids, rest])


def with_popularity(rows: pl.LazyFrame, profile: pl.DataFrame) -> pl.LazyFrame:
    """`rows` with `popularity`, log(1 + `seen`) of the article in `profile`.

    `profile` has the columns aid and seen; an article that it lacks has a null.
    """
    ids = profile["aid"]
    popularity = profile["seen"].log1p().cast(pl.Float32)
    if not _is_dense(ids):
        by_id = pl.LazyFrame({"aid": ids, "popularity": popularity})
        return rows.join(by_id, on="aid", how="left", maintain_order="left")
    # Half the work of a join, and its hash table would be as large.
    table = np.full(int(ids.to_numpy().max()) + 2, np.nan, np.float32)
    table[ids.to_numpy()] = popularity.to_numpy()

    def look_up(aid: pl.Series) -> pl.Series:
        last = len(table) - 1
        is_in_table = aid.is_between(0, last - 1).to_numpy()
        return pl.Series(table[np.where(is_in_table, aid.to_numpy(), last)], nan_to_null=True)

    column = pl.col("aid").map_batches(look_up, return_dtype=pl.Float32, is_elementwise=True)
    return rows.with_columns(popularity=column)


def _is_dense(ids: pl.Series) -> bool:
    """Whether a table of all ids up to the largest is small."""
    if ids.is_empty() or not ids.dtype.is_integer():
        return False
    values = ids.to_numpy()
    return bool(values.min() >= 0 and values.max() < DENSE * len(values))
