"""A stretch of a table, read once: numbers over all of its rows, and whole groups as a sample for
what costs more."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from kreislauf.clock import DAY_MS, HOUR_MS
from models.spec import ModelSpec
from models.table import Table

SAMPLE_ROWS = 50_000
"""Of a window, about, in whole groups: what is asked again, what baselines learn from, what
Evidently draws."""
COUNTED_ROWS = 1_000_000
"""In larger windows groups are counted in whole groups of about so many rows: memory would grow
with them."""
SILENT_HOURS = 3
"""So many hours without a row are nothing."""


@dataclass(frozen=True)
class Rows:
    """The rows of a table that can be trusted."""

    between: Callable[[int | None, int], pl.LazyFrame]
    """Those from a time (None: all) to another, ms since 1970 UTC, inclusive."""
    count: Callable[[int | None, int], int]
    """About how many they are, without reading them."""
    without: Sequence[tuple[int, int]] = ()
    """Stretches of time, ms, both ends inclusive, whose rows were left out."""

    @classmethod
    def of(cls, table: Table, rows: pl.DataFrame) -> "Rows":
        """Rows in memory, all of which can be trusted."""
        time = pl.col(table.time)

        def between(first: int | None, last: int) -> pl.LazyFrame:
            return rows.lazy().filter(
                time <= last if first is None else time.is_between(first, last)
            )

        return cls(
            between, lambda first, last: between(first, last).select(pl.len()).collect().item()
        )


@dataclass(frozen=True)
class Window:
    """What was seen between two times."""

    start: int
    """ms since 1970 UTC."""
    end: int
    """The same; inclusive."""
    values: dict[str, float]
    """Over all rows: the mean of each monitored column; `rows_per_group`; and, as nights are
    quieter, in windows of a day or more only: `volume`, log of groups a day in as many whole days
    as the window has; and `silence`, the longest stretch of whole hours without a row, at least
    `SILENT_HOURS`."""
    groups: int
    sample: pl.DataFrame
    """All rows of groups that began in the window, drawn by a hash of the group; sorted as the
    table is."""


def look(model_type: ModelSpec, rows: Rows, known: pl.DataFrame, start: int, end: int) -> Window:
    """Look at the rows from `start` to `end` (ms since 1970 UTC, inclusive), in bounded memory,
    each read once. `known` is what is known of the rows before (`ModelSpec.known`)."""
    # A group that is in the day before, too, began earlier and is not in the sample.
    first = start - DAY_MS
    table = model_type.table
    every, thin = (
        max(1, round(rows.count(first, end) / most)) for most in (COUNTED_ROWS, SAMPLE_ROWS)
    )
    found = rows.between(first, end)
    hashed = pl.col(table.group).hash(0)
    inside = found.filter(pl.col(table.time) >= start)
    count, monitored, groups, sample = pl.collect_all(
        [
            inside.select(pl.len()),
            model_type.monitored(inside, known).select(pl.all().cast(pl.Float64).mean()),
            inside.filter(hashed % every == 0).group_by(table.group).agg(pl.col(table.time).max()),
            found.filter(hashed % thin == 0),
        ],
        engine="streaming",
    )
    values = {
        name: float("nan") if value is None else value
        for name, value in monitored.row(0, named=True).items()
    }
    if groups.height:
        values["rows_per_group"] = count.item() / (every * groups.height)
    if groups.height and (days := (end + 1 - start) // DAY_MS):
        since = end + 1 - days * DAY_MS
        left_out = [
            (max(a, since), min(b, end)) for a, b in rows.without if b >= since and a <= end
        ]
        there = days - sum(b - a + 1 for a, b in left_out) / DAY_MS
        lately = every * groups.filter(pl.col(table.time) >= since).height
        values["volume"] = float(np.log(max(lately, 1) / there)) if there > 0 else float("nan")
        values["silence"] = float(
            max(SILENT_HOURS, silence(sample[table.time].to_numpy(), since, end, left_out))
        )
    began = pl.col(table.time).min().over(table.group) >= start
    return Window(start, end, values, every * groups.height, sample.filter(began).sort(table.order))


def silence(times: np.ndarray, start: int, end: int, left_out: Sequence[tuple[int, int]]) -> int:
    """Most hours in a row from `start` to `end` in which none of `times` (n,) lies, and which were
    not left out; all in ms since 1970 UTC."""
    edges = np.array([start, end])
    hours = [times[(times >= start) & (times <= end)] // HOUR_MS, edges // HOUR_MS]
    hours += [np.arange(first // HOUR_MS, last // HOUR_MS + 1) for first, last in left_out]
    return max(int(np.diff(np.unique(np.concatenate(hours))).max(initial=0)) - 1, 0)
