"""OTTO's evaluation protocol: split, labels and recall@20, comparable with published results.

The definition is that of https://github.com/otto-de/recsys-dataset at commit f404284: README.md,
KAGGLE.md and what src/testset.py, src/labels.py and src/evaluate.py do, down to `<` against `<=`.
The code is our own.

Rows have the columns session, aid, ts (ms since 1970 UTC), all Int64, and type (clicks, carts or
orders; String or Enum). Their order is the order of events, as in OTTO's files, and sessions come
in the order of their first rows. The lake sorts events of one time by article and type, and keeps
one of two equal events. Another order of such events moves none across a split, but changes the
labels of prefixes that end between them: 2 of 842 in OTTO's sample of 20 sessions.
"""

from dataclasses import dataclass

import polars as pl

from models.session_recommender.features import DAY_MS

K = 20
"""Answers that count, and maximum labels of one kind that count for a prefix."""
WEIGHTS = {"clicks": 0.10, "carts": 0.30, "orders": 0.60}
"""Weight of each kind in OTTO's score."""
PREFIX = ["session", "seen"]
"""Columns that identify a prefix."""
POSITION = pl.int_range(1, pl.len() + 1, dtype=pl.Int64).over("session")
"""1 for the first event of a session."""


@dataclass(frozen=True)
class Split:
    """Rows to learn from, and the later sessions that judge."""

    train: pl.DataFrame
    test: pl.DataFrame
    boundary: int
    """ms since 1970 UTC: every event of `train` is before it and every event of `test` after it."""


def split(rows: pl.DataFrame, days: int) -> Split:
    """Cut `days` * 24 h before the newest event; rows keep their order.

    Test are the sessions that begin after the boundary, less the articles that train does not have.
    Train are the events before it, so a session that crosses it loses its end. An event of the very
    boundary belongs to neither. Sessions with fewer than two events left are dropped, from train
    before its articles are listed. As in OTTO's code, a side can end up with no rows.

    Raises ValueError if there are no rows, a session is out of order, or nothing would be left to
    learn from.
    """
    _check(rows)
    if days <= 0:
        raise ValueError(f"The test has {days} days: give it at least 1.")
    first, newest = rows.select(first=pl.col("ts").min(), newest=pl.col("ts").max()).row(0)
    boundary = newest - days * DAY_MS
    if boundary <= first:
        raise ValueError(
            f"The rows span {(newest - first) / DAY_MS:.1f} days, and none is older than a test of "
            f"{days} days: give fewer days, or more rows."
        )
    train = _two_or_more(rows.filter(pl.col("ts") < boundary))
    later = rows.filter(pl.col("ts").min().over("session") > boundary)
    test = _two_or_more(later.join(train, on="aid", how="semi", maintain_order="left"))
    return Split(train, test, boundary)


def labels(rows: pl.DataFrame) -> pl.DataFrame:
    """What follows each prefix: one row for every event but a session's last, in the rows' order.

    Columns:
    - session.
    - seen (Int64): the events of the prefix.
    - clicks (Int64): the next article clicked, null if none is.
    - carts and orders (List(Int64), ascending): the articles that are put in the cart, or ordered,
      anywhere later.

    A next click on article 0 is null, too: OTTO's code takes that number for no label.

    Raises ValueError if there are no rows or a session is out of order.
    """
    _check(rows)
    click = (
        pl.when(pl.col("type") == "clicks").then("aid").shift(-1).backward_fill().over("session")
    )
    events = rows.with_columns(seen=POSITION, clicks=pl.when(click != 0).then(click))
    result = events.filter(pl.col("seen") < pl.len().over("session")).select(*PREFIX, "clicks")
    for kind in ("carts", "orders"):
        result = result.join(_later(events, kind), on=PREFIX, how="left", maintain_order="left")
    return result.with_columns(pl.col("carts", "orders").fill_null([]))


def recall(labels: pl.DataFrame, predictions: pl.DataFrame) -> dict[str, float]:
    """Recall@20 of clicks, carts and orders, and `total`, their average with `WEIGHTS`.

    `labels` is as of the function `labels`: all prefixes, or one of each session. `predictions` has
    the columns session and seen of the prefix, and clicks, carts and orders (List(Int64), best
    first; after 20 they are ignored). Each recall is the number of labels hit over the number that
    20 answers could have hit, min(20, n) of a prefix with n, both summed over all prefixes. A
    prefix without predictions hits nothing.

    Raises ValueError if a prefix comes twice or a kind has no label at all.
    """
    for name, frame in (("labels", labels), ("predictions", predictions)):
        if frame.select(PREFIX).is_duplicated().any():
            raise ValueError(f"The {name} have a prefix (session, seen) twice: keep one of them.")
    both = labels.with_columns(pl.concat_list("clicks").list.drop_nulls()).join(
        predictions, on=PREFIX, how="left"
    )
    result = {}
    for kind in WEIGHTS:
        answers = pl.col(f"{kind}_right").list.head(K)
        hit = answers.list.set_intersection(pl.col(kind)).list.len()
        possible = pl.col(kind).list.len().clip(upper_bound=K)
        hits, limit = both.select(hit.sum(), possible=possible.sum()).row(0)
        if not limit:
            raise ValueError(
                f"The labels have no {kind}, so their recall is not defined: give a longer test."
            )
        result[kind] = hits / limit
    return result | {"total": sum(WEIGHTS[kind] * result[kind] for kind in WEIGHTS)}


def _check(rows: pl.DataFrame) -> None:
    if rows.is_empty():
        raise ValueError("There are no rows: widen the window, or ingest files first.")
    backwards = rows.filter((pl.col("ts").diff() < 0).over("session"))
    if not backwards.is_empty():
        raise ValueError(
            f"Session {backwards['session'][0]} has an event that is older than the one before it: "
            'sort with rows.sort("session", "ts", maintain_order=True).'
        )


def _two_or_more(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.filter(pl.len().over("session") >= 2)


def _later(events: pl.DataFrame, kind: str) -> pl.DataFrame:
    """Articles with an event of `kind` after a prefix: columns session, seen and `kind`."""
    of_kind = events.filter(pl.col("type") == kind)
    last = of_kind.group_by("session", "aid").agg(pl.col("seen").max())
    before = last.filter(pl.col("seen") > 1).with_columns(seen=pl.int_ranges(1, "seen"))
    return before.explode("seen").group_by(PREFIX).agg(pl.col("aid").sort().alias(kind))
