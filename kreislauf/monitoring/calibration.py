"""What is usual: a version's signals in windows in which nothing was wrong, from before its
hold-out."""

import math
from collections.abc import Iterator

import polars as pl

from kreislauf.clock import DAY_MS
from kreislauf.monitoring.limits import LEAST
from kreislauf.monitoring.probe import View
from kreislauf.monitoring.statistics import PART_GROUPS
from kreislauf.monitoring.window import SAMPLE_ROWS, Rows, Window, look
from models.spec import ModelSpec

CELLS = 16
"""Windows from which limits are learnt, at most."""
LEARN_ROWS = 1_000_000
"""Newest rows, about, from which a baseline learns anew."""


def usual_windows(
    view: View, rows: Rows, first: int, last: int, length: int
) -> Iterator[tuple[Window, dict]]:
    """Windows in the newer half of what the version learnt from, from `first` to `last` (ms,
    inclusive), and what was measured in them, with `rows`, those of the sample. They are `length`
    ms long, or shorter, down to a day, if there were fewer than `CELLS`: shorter ones vary more, so
    that limits are too wide and not too narrow, and few windows would make them wider still."""
    half = (last + 1 - first) // 2
    count = min(CELLS, max(LEAST + 1, half // min(length, DAY_MS)))
    step = min(length, half // count)
    height = min(rows.count(last + 1 - step * count, last) / count, SAMPLE_ROWS)
    for start in [last + 1 - step * (count - i) for i in range(count)]:
        known = view.model_type.training_profile(rows.between(None, start - 1)).collect(
            engine="streaming"
        )
        cell = look(view.model_type, rows, known, start, start + step - 1)
        if cell.sample[view.model_type.table.group].n_unique() >= PART_GROUPS:
            yield cell, view.measure(cell, known, height) | {"rows": float(cell.sample.height)}


def newest(model_type: ModelSpec, rows: Rows, first: int, last: int) -> pl.DataFrame:
    """The newest rows until `last` (ms, inclusive), in whole groups: all of them back to `first`,
    or about `LEARN_ROWS`, of days as few as have so many."""
    days = 1
    while (start := last + 1 - days * DAY_MS) > first and rows.count(start, last) < LEARN_ROWS:
        days *= 2
    start = max(start, first)
    table = model_type.table
    thin = max(1, round(rows.count(start, last) / LEARN_ROWS))
    drawn = (
        rows.between(start, last)
        .filter(pl.col(table.group).hash(0) % thin == 0)
        .collect(engine="streaming")
    )
    return drawn.sort(table.order)


def octave(length: int) -> int:
    """Which windows are about as long as one of `length` ms: their logarithm to base 2, rounded."""
    return round(math.log2(length))


def as_rows(
    model: str,
    version: int,
    start: int,
    end: int,
    length: int,
    verdict: str,
    values: dict[str, float],
) -> pl.DataFrame:
    """A window's signals for the table of windows; `length` (ms) is that of the windows it stands
    beside."""
    where = {"model": model, "version": version, "start": start, "end": end}
    told = {"octave": octave(length), "verdict": verdict}
    return pl.DataFrame(
        [{**where, **told, "signal": name, "value": float(value)} for name, value in values.items()]
    )


def quiet(found: pl.DataFrame, model: str, version: int, start: int, end: int) -> pl.DataFrame:
    """Of the table of windows, the rows from which the limits for one from `start` to `end` are
    learnt: those of the version's calibration, and quiet windows before it that do not overlap with
    each other."""
    if found.is_empty():
        return found
    mine = {"model": model, "version": version, "octave": octave(end - start + 1)}
    found = found.filter(pl.col("end") < start, **mine)
    kept = []
    until = -1
    for first, last, verdict in (
        found.select("start", "end", "verdict").unique().sort("start", "end").rows()
    ):
        if verdict == "calibration" or (verdict == "quiet" and first > until):
            kept.append((first, last))
            until = last
    chosen = pl.DataFrame(kept, {"start": pl.Int64, "end": pl.Int64}, orient="row")
    return found.join(chosen, on=["start", "end"], how="semi")
