"""Where curves, marks and intervals stand in a picture of a given width: plain geometry, in the
units of the SVG. The template draws it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import polars as pl

from kreislauf.clock import DAY_MS, date
from kreislauf.evaluation.intervals import Interval

LEFT = 46
RIGHT = 12
TOP = 26
BOTTOM = 28
MARK_GAP = 30
"""Least distance between two marks that both have a label."""
TICK_GAP = 90
"""Least distance between two dates on the axis."""
DATE_ROOM = 20
"""What a date needs on its right, beyond the margin."""
ROW = 26
"""Height of a row with an interval."""


@dataclass(frozen=True)
class Tick:
    """A place on an axis."""

    at: float
    label: str


@dataclass(frozen=True)
class Point:
    """A window on the curve of the live quality."""

    x: float
    y: float
    css: str
    title: str


@dataclass(frozen=True)
class CurveChart:
    """Qualities over time."""

    css: str
    width: int
    height: int
    left: int
    right: int
    top: int
    bottom: int
    times: list[Tick]
    values: list[Tick]
    marks: list[Tick]
    lines: list[tuple[str, str]]
    """CSS class and `points` of each line."""
    points: list[Point]


class LabelledInterval(NamedTuple):
    """An interval, and what is drawn beside it."""

    label: str
    css: str
    """CSS class of its colour."""
    interval: Interval
    bounds: tuple[tuple[str, float], ...] = ()
    """CSS class and value of each bound that its mean may pass."""


@dataclass(frozen=True)
class IntervalRow:
    """An interval beside its name, and the bounds that its mean may pass."""

    y: float
    label: str
    css: str
    low: float
    mean: float
    high: float
    bounds: list[tuple[str, float]]


@dataclass(frozen=True)
class IntervalChart:
    """Intervals, one below the other."""

    css: str
    width: int
    height: int
    left: int
    right: int
    bottom: int
    zero: float
    values: list[Tick]
    rows: list[IntervalRow]


@dataclass(frozen=True)
class Scale:
    """A linear map from numbers to places."""

    low: float
    high: float
    first: float
    last: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / max(self.high - self.low, 1e-12)
        return round(self.first + share * (self.last - self.first), 1)


def curves(
    css: str,
    width: int,
    height: int,
    windows: pl.DataFrame,
    names: Sequence[str],
    releases: Sequence[tuple[int, str]],
) -> CurveChart:
    """The columns `names` of `windows` over `end` (ms); the first has a point for each verdict, and
    is broken where the version changes. `releases` are marks: their time (ms) and label."""
    ends = windows["end"].to_list()
    times = [*ends, *(time for time, _ in releases)]
    right = width - RIGHT
    bottom = height - BOTTOM
    x = Scale(min(times), max(times), LEFT + 6, right - 6)
    highest = windows.select(pl.max_horizontal(pl.col(names).max())).item()
    steps = nice_steps(0.0, highest or 0.0, 4)
    y = Scale(0.0, steps[-1], bottom, TOP)
    lines = []
    for name in reversed(names):
        pieces = [windows]
        if name == names[0]:
            pieces = windows.partition_by("version", maintain_order=True)
        for piece in pieces:
            drawn = piece.drop_nulls(name).select("end", name).rows()
            lines.append((name, " ".join(f"{x(end)},{y(value)}" for end, value in drawn)))
    points = []
    for row in windows.drop_nulls(names[0]).iter_rows(named=True):
        title = f"{date(row['end'])}, version {row['version']}: {row[names[0]]:.4f}"
        place = (x(row["end"]), y(row[names[0]]))
        verdict = row["verdict"]
        points.append(Point(*place, verdict.replace(" ", "-"), f"{title}, {verdict}"))
    return CurveChart(
        css=css,
        width=width,
        height=height,
        left=LEFT,
        right=right,
        top=TOP,
        bottom=bottom,
        times=dates(x, max(2, (right - LEFT) // TICK_GAP)),
        values=[Tick(y(step), f"{step:g}") for step in steps],
        marks=labelled(releases, x),
        lines=lines,
        points=points,
    )


def intervals(css: str, width: int, rows: Sequence[LabelledInterval], left: int) -> IntervalChart:
    """Intervals, the first at the top; zero is always in the picture."""
    values = [0.0]
    for row in rows:
        values += [row.interval.low, row.interval.high, *(value for _, value in row.bounds)]
    steps = nice_steps(min(values), max(values), max(2, (width - left) // 120))
    right = width - 2 * RIGHT
    x = Scale(steps[0], steps[-1], left, right)
    bottom = ROW * len(rows) + 8
    drawn = []
    for number, row in enumerate(rows):
        interval = row.interval
        places = (x(interval.low), x(interval.mean), x(interval.high))
        bounds = [(name, x(value)) for name, value in row.bounds]
        y = ROW * number + ROW / 2 + 4
        drawn.append(IntervalRow(y, row.label, row.css, *places, bounds))
    ticks = [Tick(x(step), f"{step:g}") for step in steps]
    return IntervalChart(css, width, bottom + BOTTOM, left, right, bottom, x(0.0), ticks, drawn)


def nice_steps(low: float, high: float, count: int) -> list[float]:
    """About `count` round steps from `low` or below it to `high` or above it."""
    raw = max(high - low, 1e-9) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first = math.floor(low / step + 1e-9)
    last = max(math.ceil(high / step - 1e-9), first + 1)
    return [round(number * step, 12) for number in range(first, last + 1)]


def labelled(releases: Sequence[tuple[int, str]], x: Scale) -> list[Tick]:
    """Marks of releases; one that is close to the next has no label."""
    places = [(x(time), label) for time, label in releases]
    marks = []
    for number, (place, label) in enumerate(places):
        crowded = number + 1 < len(places) and places[number + 1][0] - place < MARK_GAP
        marks.append(Tick(place, label * (not crowded)))
    return marks


def dates(x: Scale, count: int) -> list[Tick]:
    """At most `count` beginnings of days in equal steps; the first moment if no day begins."""
    step = max(1, math.ceil((x.high - x.low) / count / DAY_MS)) * DAY_MS
    first = math.ceil(x.low / DAY_MS) * DAY_MS
    ticks = [Tick(x(day), date(day)) for day in range(first, int(x.high) + 1, step)]
    inside = [tick for tick in ticks if tick.at <= x.last - DATE_ROOM]
    return inside or [Tick(x.first, date(int(x.low)))]
