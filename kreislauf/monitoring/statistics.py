"""What is counted and compared about a window: pure functions of arrays and frames."""

from collections.abc import Mapping

import numpy as np
import polars as pl

from models import text
from models.table import Table

STRETCHES = 8
"""Stretches of a window, one after the other: a fault that began late is seen in the last ones."""
MIN_GROUPS = 30
"""Fewest groups of a stretch or a slice whose mean is worth looking at."""
MIN_VALUES = 20
"""Fewest frequent values of which some can have vanished."""
NEW = 0.005
"""Highest frequency in the hold-out, as a share of that in the window, of a label that is new."""


def proportions(categories: np.ndarray) -> dict[str, float]:
    """Share of each of the `categories`, strings (n,)."""
    names, counts = np.unique(categories, return_counts=True)
    shares = counts / len(categories)
    return {str(name): float(share) for name, share in zip(names, shares, strict=True)}


def standardised_mean(
    scores: np.ndarray, categories: np.ndarray, shares: Mapping[str, float]
) -> float:
    """Mean of `scores` (n,) as it would be if the `categories` (n,) had the given shares.

    Direct standardisation (Fleiss, Levin and Paik, "Statistical Methods for Rates and Proportions",
    2003, ch. 19). Categories that are missing do not count; NaN if all are.
    """
    means = {}
    for category in shares:
        inside = categories == category
        if inside.any():
            means[category] = float(scores[inside].mean())
    weight = sum(shares[category] for category in means)
    if not weight:
        return float("nan")
    return sum(shares[category] * mean for category, mean in means.items()) / weight


def standard_error(
    scores: np.ndarray, categories: np.ndarray, groups: np.ndarray, shares: Mapping[str, float]
) -> float:
    """Standard error of `standardised_mean`, of whose examples those of one of the `groups` (n,)
    depend on each other: by the sum of each group's deviations (Cochran, "Sampling Techniques",
    1977, ch. 6)."""
    deviations = np.zeros(len(scores))
    weight = sum(share for name, share in shares.items() if (categories == name).any())
    for category, share in shares.items():
        inside = categories == category
        if inside.any():
            centred = scores[inside] - scores[inside].mean()
            deviations[inside] = share / weight / inside.sum() * centred
    _, index = np.unique(groups, return_inverse=True)
    return float(np.sqrt((np.bincount(index, deviations) ** 2).sum()))


def are_names(labels: np.ndarray) -> bool:
    """Whether right answers (n, ...) are ids, texts or yes and no, of which some are frequent.

    Fractions say how good something is, such as the gains of a list, and are equal by chance only.
    """
    return labels.dtype.kind != "f"


def most_frequent(values: np.ndarray) -> np.ndarray:
    """The most frequent of `values` (n, ...)."""
    _, first, counts = np.unique(
        text.numbered(values), axis=0, return_index=True, return_counts=True
    )
    return values[first[counts.argmax()]]


def share_of(value: np.ndarray, values: np.ndarray) -> float:
    """Share of `values` (n, ...) that are equal to `value`; 0 without any."""
    if not len(values):
        return 0.0
    return float(equal(value, values).mean())


def equal(value: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Which of `values` (n, ...) are equal to `value`, (n,)."""
    return (values == value).reshape(len(values), -1).all(1)


def frequency_correlation(now: np.ndarray, before: np.ndarray, values: int) -> float:
    """Correlation (Pearson) of how often each value occurs in `now` (n, ...) and `before` (m, ...).

    There are at least so many `values`, most of which may occur in neither. NaN if one of the two
    is empty or has all values equally often.
    """
    if not len(now) or not len(before):
        return float("nan")
    return _correlation(*_counts(now, before), values)


def rest_correlation(now: np.ndarray, before: np.ndarray, values: int) -> float:
    """As `frequency_correlation`, of the values that are not new."""
    counts_now, counts_before = _counts(now, before)
    old = ~_new(counts_now, counts_before)
    return _correlation(counts_now[old], counts_before[old], values)


def new_label_shares(now: np.ndarray, before: np.ndarray) -> tuple[float, float]:
    """Share of the most frequent new value in `now` (n, ...), and of all new ones.

    New is what `before` (m, ...) has less than `NEW` times as often.
    """
    counts_now, counts_before = _counts(now, before)
    new = counts_now[_new(counts_now, counts_before)] / len(now)
    return float(new.max(initial=0)), float(new.sum())


def _counts(now: np.ndarray, before: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How often each distinct value occurs in `now` (n, ...) and `before` (m, ...), (k,)."""
    count, numbers_now, numbers_before = _numbers(now, before)
    counts_now = np.bincount(numbers_now, minlength=count)
    return counts_now, np.bincount(numbers_before, minlength=count)


def _numbers(first: np.ndarray, second: np.ndarray) -> tuple[int, np.ndarray, np.ndarray]:
    """How many distinct values there are in two arrays (n, ...) and (m, ...), and the number of
    each value in them, (n,) and (m,)."""
    both = text.numbered(np.concatenate([first, second]))
    distinct, numbers = np.unique(both, axis=0, return_inverse=True)
    of_first, of_second = np.split(numbers.ravel(), [len(first)])
    return len(distinct), of_first, of_second


def _new(counts_now: np.ndarray, counts_before: np.ndarray) -> np.ndarray:
    """Which values are new, (k,)."""
    shares_now = counts_now / max(counts_now.sum(), 1)
    return counts_before / max(counts_before.sum(), 1) < NEW * shares_now


def _correlation(counts_now: np.ndarray, counts_before: np.ndarray, values: int) -> float:
    """Correlation of counts (k,); there are so many `values`, and those missing have no count. NaN
    if either is constant."""
    size = max(len(counts_now), values)
    missing = np.zeros(size - len(counts_now))
    all_now = np.concatenate([counts_now, missing])
    all_before = np.concatenate([counts_before, missing])
    if not np.ptp(all_now) or not np.ptp(all_before):
        return float("nan")
    return float(np.corrcoef(all_now, all_before)[0, 1])


def vanished_share(
    now: np.ndarray,
    groups_now: np.ndarray,
    before: np.ndarray,
    groups_before: np.ndarray,
    expected: float,
) -> float:
    """Share that values have that are not in `now` (n, ...) at all, among the values of `before`
    (m, ...) that as many groups as now should have `expected` times; 0 if there are fewer than
    `MIN_VALUES` of these. Groups are (n,) and (m,)."""
    count, numbers_before, numbers_now = _numbers(before, now)
    ids_before = np.unique(groups_before, return_inverse=True)[1]
    pairs = np.unique(np.stack([numbers_before, ids_before]), axis=1)
    counts = np.bincount(pairs[0], minlength=count)
    ratio = len(np.unique(groups_now)) / max(len(np.unique(groups_before)), 1)
    frequent = counts * ratio >= expected
    if frequent.sum() < MIN_VALUES:
        return 0.0
    present = np.bincount(numbers_now, minlength=count) > 0
    return float(counts[frequent & ~present].sum() / counts[frequent].sum())


def groups_by_start(rows: pl.DataFrame, table: Table) -> pl.DataFrame:
    """Groups and when they began (ms), in that order."""
    starts = rows.group_by(table.group).agg(pl.col(table.time).min())
    return starts.sort(table.time, table.group)


def stretch_means(
    scores: np.ndarray, groups: np.ndarray, starts: pl.DataFrame
) -> list[tuple[int, float]]:
    """Beginning (ms) and mean score of `STRETCHES` stretches of the window, with as many groups
    each.

    `scores` (n,) are of examples of `groups` (n,); `starts` is from `groups_by_start`. Stretches of
    fewer than `MIN_GROUPS` groups are left out.
    """
    scored = starts.filter(pl.nth(0).is_in(text.distinct(groups).tolist()))
    means = []
    for index in np.array_split(np.arange(scored.height), STRETCHES):
        stretch = scored[index]
        if stretch.height >= MIN_GROUPS:
            inside = text.is_among(groups, stretch.to_series())
            means.append((stretch[0, 1], float(scores[inside].mean())))
    return means


def fault_interval(
    stretches: list[tuple[int, float]], mean: float, tolerance: float, start: int, end: int
) -> tuple[int, int]:
    """From when to when (ms, inclusive) a window from `start` to `end` is not to be trusted.

    From the first to the last stretch that is nearer to the worst one than to the usual `mean`, and
    one more at either side. All of the window, if its stretches differ by less than `tolerance`.
    """
    means = [stretch_mean for _, stretch_mean in stretches]
    if len(stretches) < 2 or max(means) - min(means) < tolerance:
        return start, end
    middle = (min(means) + mean) / 2
    bad = [i for i, stretch_mean in enumerate(means) if stretch_mean < middle]
    first = max(bad[0] - 1, 0)
    last = bad[-1] + 2
    if first > 0:
        start = stretches[first][0]
    if last < len(stretches):
        end = stretches[last][0] - 1
    return start, end
