"""What is counted and compared about a window: pure functions of arrays and frames"""

import numpy as np
import polars as pl

from kreislauf.monitoring.diagnosis import NEW
from models.table import Table

PARTS = 8
"""Of a window, one after the other: a fault that began late is seen in the last of them."""
PART_GROUPS = 30
"""A part or a slice with fewer groups says nothing."""


def frequent(values: np.ndarray) -> np.ndarray:
    """The most frequent of `values` (n, ...)."""
    found, counts = np.unique(values, axis=0, return_counts=True)
    return found[counts.argmax()]


def share(values: np.ndarray, wanted: np.ndarray) -> float:
    """Share of `values` (n, ...) that are `wanted`."""
    return float((values == wanted).reshape(len(values), -1).all(1).mean()) if len(values) else 0.0


def alike(now: np.ndarray, then: np.ndarray, values: int) -> float:
    """Correlation (Pearson) of how often each value occurs in `now` (n, ...) and `then` (m, ...);
    NaN without any. There are at least so many `values`, most of which may occur in neither."""
    if not len(now) or not len(then):
        return float("nan")
    _, index = np.unique(np.concatenate([now, then]), axis=0, return_inverse=True)
    a, b = (
        np.bincount(part, minlength=index.max() + 1) for part in np.split(index.ravel(), [len(now)])
    )
    count = max(len(a), values)
    a, b = (np.r_[one, np.zeros(count - len(one))] for one in (a, b))
    return float(np.corrcoef(a, b)[0, 1]) if np.ptp(a) and np.ptp(b) else float("nan")


def newcomer(now: np.ndarray, then: np.ndarray) -> tuple[float, float]:
    """Share of the most frequent new value in `now` (n, ...), and of all new ones. New is what
    `then` (m, ...) has less than `NEW` as often."""
    values, index, counts = np.unique(
        np.concatenate([now, then]), axis=0, return_inverse=True, return_counts=True
    )
    shares = np.bincount(index.ravel()[: len(now)], minlength=len(values)) / len(now)
    before = (counts - np.bincount(index.ravel()[: len(now)], minlength=len(values))) / max(
        len(then), 1
    )
    new = shares[before < NEW * shares]
    return float(new.max(initial=0)), float(new.sum())


def in_order(rows: pl.DataFrame, table: Table) -> pl.DataFrame:
    """Groups and when they began (ms), in that order."""
    return rows.group_by(table.group).agg(pl.col(table.time).min()).sort(table.time, table.group)


def in_parts(
    scores: np.ndarray, groups: np.ndarray, began: pl.DataFrame
) -> list[tuple[int, float]]:
    """`PARTS` stretches of the window, one after the other: when each begins (ms), and the mean of
    `scores` (n,), of examples of `groups` (n,), in it. `began` has the groups and their times, in
    order. Parts of few groups are left out."""
    asked = began.filter(pl.nth(0).is_in(np.unique(groups)))
    parts = [asked[index] for index in np.array_split(np.arange(asked.height), PARTS)]
    return [
        (part[0, 1], float(scores[np.isin(groups, part[:, 0].to_numpy())].mean()))
        for part in parts
        if part.height >= PART_GROUPS
    ]


def faulty(
    parts: list[tuple[int, float]], usual: float, limit: float, start: int, end: int
) -> tuple[int, int]:
    """From when to when (ms, inclusive) a window from `start` to `end` is not to be trusted: from
    the first to the last of the parts that are nearer to the worst than to what is usual, and one
    more at either side; all of it, if its parts differ by less than `limit`."""
    means = [mean for _, mean in parts]
    if len(parts) < 2 or max(means) - min(means) < limit:
        return start, end
    bad = [i for i, mean in enumerate(means) if mean < (min(means) + usual) / 2]
    first = max(bad[0] - 1, 0)
    last = bad[-1] + 2
    return start if first == 0 else parts[first][0], end if last >= len(parts) else parts[last][
        0
    ] - 1
