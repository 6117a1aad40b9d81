"""A stretch of a table, read once: numbers over all of its rows, and whole groups as a sample for what costs more."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from models.spec import ModelSpec

SAMPLE_ROWS = 50_000
"""Of a window, about, in whole groups: what is asked again, what baselines learn from, what Evidently draws."""
SILENT_HOURS = 3
"""So many hours without a row are nothing."""
HOUR_MS, DAY_MS = 3_600_000, 86_400_000


@dataclass(frozen=True)
class Window:
    """What was seen between two times."""

    start: int
    """ms since 1970 UTC."""
    end: int
    """The same; inclusive."""
    values: dict[str, float]
    """Over all rows: the mean of each monitored column; `rows_per_group`; `volume`, log of groups a day; and `silence`,
    the longest stretch of whole hours without a row, at least `SILENT_HOURS`."""
    groups: int
    sample: pl.DataFrame
    """All rows of groups that began in the window, drawn by a hash of the group; sorted as the table is."""


def look(
    kind: ModelSpec,
    rows: pl.LazyFrame,
    known: pl.DataFrame,
    start: int,
    end: int,
    height: int,
    without: Sequence[tuple[int, int]] = (),
) -> Window:
    """Look at the rows from `start` to `end` (ms since 1970 UTC, inclusive), in bounded memory.

    `rows` begin a day before `start`: a group that is in that day, too, began earlier and is not in the sample. `known`
    is what is known of the rows before (`ModelSpec.known`), `height` about how many rows there are, and `without` the
    stretches of time (both ends inclusive) that were left out: nothing is missing there.
    """
    table = kind.table
    inside = rows.filter(pl.col(table.time).is_between(start, end))
    drawn = pl.col(table.group).hash(0) % max(1, round(height / SAMPLE_ROWS)) == 0
    counted, columns, sample = pl.collect_all(
        [
            inside.select(pl.len().alias("rows"), pl.col(table.group).n_unique().alias("groups")),
            kind.monitored(inside, known).select(pl.all().cast(pl.Float64).mean()),
            rows.filter(drawn, pl.col(table.time) <= end),
        ],
        engine="streaming",
    )
    count, groups = counted.row(0)
    values = {name: float("nan") if value is None else value for name, value in columns.row(0, named=True).items()}
    if groups:
        left_out = [(max(first, start), min(last, end)) for first, last in without if last >= start and first <= end]
        days = (end - start + 1 - sum(last - first + 1 for first, last in left_out)) / DAY_MS
        values |= {"rows_per_group": count / groups, "volume": float(np.log(groups / days))}
        values["silence"] = float(max(SILENT_HOURS, silence(sample[table.time].to_numpy(), start, end, left_out)))
    began = pl.col(table.time).min().over(table.group) >= start
    return Window(start, end, values, groups, sample.filter(began).sort(table.order))


def silence(times: np.ndarray, start: int, end: int, left_out: Sequence[tuple[int, int]]) -> int:
    """Most hours in a row from `start` to `end` in which none of `times` (n,) lies, and which were not left out; all in
    ms since 1970 UTC."""
    edges = np.array([start, end])
    hours = [times[(times >= start) & (times <= end)] // HOUR_MS, edges // HOUR_MS]
    hours += [np.arange(first // HOUR_MS, last // HOUR_MS + 1) for first, last in left_out]
    return max(int(np.diff(np.unique(np.concatenate(hours))).max(initial=0)) - 1, 0)
