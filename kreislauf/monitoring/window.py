"""A stretch of a table, read once: statistics over all of its rows, and whole groups as a sample
for what costs more."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from kreislauf.clock import DAY_MS, HOUR_MS
from models.spec import ModelSpec
from models.table import Table

SAMPLE_ROWS = 50_000
"""Rows sampled of a window, about, in whole groups: scored again, refitted, drawn by Evidently.

More are, where so many have too few groups for the policy."""
COUNTED_ROWS = 1_000_000
"""Rows, about, from which groups are counted, in whole groups: memory would grow with more."""
MIN_SILENT_HOURS = 3
"""Hours without a row that count as none."""


@dataclass(frozen=True)
class TrustedRows:
    """The rows of a table that can be trusted."""

    between: Callable[[int | None, int], pl.LazyFrame]
    """Rows from a time (None: all) to another, ms since 1970 UTC, inclusive."""
    count: Callable[[int | None, int], int]
    """Number of these rows, about, without reading them."""
    excluded: Sequence[tuple[int, int]] = ()
    """Stretches of time, ms, both ends inclusive, whose rows were left out."""
    table_version: int = 0
    """Version of the table that they are read from."""

    @classmethod
    def of(cls, table: Table, rows: pl.DataFrame) -> "TrustedRows":
        """Rows in memory, all of which can be trusted."""
        time = pl.col(table.time)

        def between(first: int | None, last: int) -> pl.LazyFrame:
            if first is None:
                return rows.lazy().filter(time <= last)
            return rows.lazy().filter(time.is_between(first, last))

        return cls(
            between, lambda first, last: between(first, last).select(pl.len()).collect().item()
        )


@dataclass(frozen=True)
class Window:
    """The rows between two times."""

    start: int
    """Beginning, ms since 1970 UTC."""
    end: int
    """End, ms since 1970 UTC, inclusive."""
    statistics: dict[str, float]
    """Numbers over all rows: the mean of each monitored column, `rows_per_group`, and `duration`,
    the mean of the log of 1 + seconds from a group's first row in the window to its last one. A
    group that lasts has neither: the longer the window, the more it has of the group.

    Windows of a day or more have two others, because nights are quieter. `volume` is the log of
    groups a day, in as many whole days as the window has; of rows a day where groups last.
    `silence` is the longest stretch of whole hours without a row, at least `MIN_SILENT_HOURS`.
    """
    groups: int
    """Number of groups, about."""
    sample: pl.DataFrame
    """All rows of groups that began in the window (of lasting ones, those of the window), drawn by
    a hash of the group; sorted as the table is."""


def read_window(
    model_type: ModelSpec, rows: TrustedRows, profile: pl.DataFrame, start: int, end: int
) -> Window:
    """Read the rows from `start` to `end` (ms since 1970 UTC, inclusive) once, in bounded memory.

    Only long groups are sampled in a second pass, if `SAMPLE_ROWS` rows have fewer groups than the
    policy wants. `profile` is `ModelSpec.training_profile` of the rows before.
    """
    table = model_type.table
    # A group that is in the day before, too, began earlier and is not in the sample.
    first = start - DAY_MS
    height = rows.count(first, end)
    counted_share = max(1, round(height / COUNTED_ROWS))
    sampled_share = max(1, round(height / SAMPLE_ROWS))
    hashed = pl.col(table.group).hash(0)
    times = pl.col(table.time)
    stretch = rows.between(first, end)
    inside = stretch.filter(times >= start)
    monitored_means = model_type.monitored(inside, profile).select(pl.all().cast(pl.Float64).mean())
    counted = inside.filter(hashed % counted_share == 0)
    count, monitored, groups, sample = pl.collect_all(
        [
            inside.select(pl.len()),
            monitored_means,
            counted.group_by(table.group).agg(first=times.min(), last=times.max()),
            stretch.filter(hashed % sampled_share == 0),
        ],
        engine="streaming",
    )
    statistics = _numbers(monitored)
    sampled = sample[table.time].to_numpy()
    if groups.height and table.lasting:
        statistics |= _per_day(start, end, sampled, sampled_share, sampled, rows.excluded)
    elif groups.height:
        statistics["rows_per_group"] = count.item() / (counted_share * groups.height)
        ends = groups["last"].to_numpy()
        seconds = (ends - groups["first"].to_numpy()) / 1000
        statistics["duration"] = float(np.log1p(seconds).mean())
        statistics |= _per_day(start, end, ends, counted_share, sampled, rows.excluded)
    began = table.within(start)
    sample = sample.filter(began)
    wanted = 2 * model_type.policy.min_groups  # about half of them may have begun before the window
    larger_share = max(1, counted_share * groups.height // wanted)
    if 2 * sample[table.group].n_unique() < wanted and larger_share < sampled_share:
        whole_groups = stretch.filter(hashed % larger_share == 0)
        sample = whole_groups.collect(engine="streaming").filter(began)
    return Window(start, end, statistics, counted_share * groups.height, sample.sort(table.order))


def _numbers(means: pl.DataFrame) -> dict[str, float]:
    """The one row of `means` by column, NaN for null."""
    return means.fill_null(float("nan")).row(0, named=True)


def _per_day(
    start: int,
    end: int,
    last_times: np.ndarray,
    counted_share: int,
    times: np.ndarray,
    excluded: Sequence[tuple[int, int]],
) -> dict[str, float]:
    """`volume` and `silence` of a window's whole days, see `Window.statistics`; none below a day.

    `last_times` (groups,) are the newest times of every `counted_share`-th group, or those of its
    rows, `times` (rows,) those of the sample, all in ms since 1970 UTC.
    """
    days = (end + 1 - start) // DAY_MS
    if not days:
        return {}
    since = end + 1 - days * DAY_MS
    gaps = [(max(a, since), min(b, end)) for a, b in excluded if b >= since and a <= end]
    covered_days = days - sum(b - a + 1 for a, b in gaps) / DAY_MS
    newest_groups = counted_share * int((last_times >= since).sum())
    volume = float("nan")
    if covered_days > 0:
        volume = float(np.log(max(newest_groups, 1) / covered_days))
    silent_hours = silence(times, since, end, gaps)
    return {"volume": volume, "silence": float(max(MIN_SILENT_HOURS, silent_hours))}


def silence(times: np.ndarray, start: int, end: int, excluded: Sequence[tuple[int, int]]) -> int:
    """Longest stretch of hours from `start` to `end` in which none of `times` (n,) lies, and which
    was not left out; all in ms since 1970 UTC."""
    edges = np.array([start, end])
    hours = [times[(times >= start) & (times <= end)] // HOUR_MS, edges // HOUR_MS]
    hours += [np.arange(first // HOUR_MS, last // HOUR_MS + 1) for first, last in excluded]
    occupied = np.unique(np.concatenate(hours))
    return max(int(np.diff(occupied).max(initial=0)) - 1, 0)
