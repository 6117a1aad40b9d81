"""Events that no visitor of a shop makes, and hours that no open shop has.

Limits follow from the data. A limit lies 3.5 robust standard deviations (by the median absolute
deviation) above the median, both of the logarithm. It is at least twice the median (for a pace:
five times, because people differ). An article also needs five deviations in an hour, because there
are many articles and hours. Frames begin with the column `when`, in UTC.
"""

import math
from datetime import date, timedelta

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.dates import date2num

from notebooks.pictures import (
    PLAIN,
    RED,
    SERIES,
    Page,
    Shown,
    draw_empty,
    make_panels,
    use_log_scale,
)

HOUR = 3_600_000
DEFAULT_LIMIT = 60.0
"""Limit without any data to learn it from: an event a second, if it is a pace."""
MIN_EVENTS_FOR_PACE = 10
"""Minimum events of a session whose pace means something."""


def limit(values: pl.Series, times: float = 2) -> float:
    """The limit above which a positive value is suspicious: at least `times` the median."""
    logs = values.drop_nulls().log().to_numpy()
    if not len(logs):
        return DEFAULT_LIMIT
    deviations = np.abs(logs - np.median(logs))
    sd = 1.4826 * np.median(deviations)
    if not sd:
        # Most values are the same.
        sd = 1.2533 * deviations.mean()
    return float(np.exp(np.median(logs) + max(3.5 * sd, math.log(times))))


def show_suspects(page: Page, events: pl.DataFrame, sessions: pl.DataFrame) -> Shown:
    """A picture of all suspects, with the worst of each class below."""
    figure, (paces, articles, silence, moments) = make_panels(
        "Which events are suspicious", "AB;CC;DD", 10
    )
    steady = sessions.filter(pl.col("events") >= MIN_EVENTS_FOR_PACE)
    fast = limit(steady["pace"], times=5)
    long = limit(sessions["events"])
    jumps = surprises(events)
    by_hour = hours(events)
    jump = max(limit(jumps["surprise"]), 5)
    suspects = {
        f"sessions faster than {fast:.3g} events a minute": _above(steady, "pace", fast),
        f"sessions of more than {long:.0f} events": _above(sessions, "events", long),
        f"hours with an article more than {jump:.3g} deviations up": jumps.filter(
            pl.col("surprise") > jump
        ),
        "outages (hours without events)": outages(by_hour),
        "articles clicked again within a second": repeated_clicks(events),
        "sessions with orders before any click or cart": orders_from_nowhere(events),
    }
    _draw_paces(paces, sessions, fast, long)
    _draw_jumps(articles, jumps, jump)
    _draw_hours(silence, by_hour)
    first, last = (by_hour["when"][i].date() for i in (0, -1))
    _draw_moments(moments, suspects, (first - timedelta(days=1), last + timedelta(days=1)))
    counts = "; ".join(f"{name}: {rows.height:,}" for name, rows in suspects.items())
    worst = {name: rows.head(5) for name, rows in suspects.items()}
    return page.show("suspects", figure, f"Found: {counts}.", worst)


def _above(sessions: pl.DataFrame, column: str, bound: float) -> pl.DataFrame:
    """Sessions beyond a limit."""
    rows = sessions.filter(pl.col(column) > bound).sort(column, "session", descending=True)
    return rows.select("when", "session", "events", "pace")


def _draw_paces(axes: Axes, sessions: pl.DataFrame, fast: float, long: float) -> None:
    """Sessions by length and pace, with the limits."""
    axes.set(title="sessions by length and pace; red: limits", xlabel="events in the session")
    dots = (
        sessions.drop_nulls("pace")
        .group_by("events", pace=pl.col("pace").log10().round(1))
        .agg(n=pl.len())
    )
    if dots.is_empty():
        return draw_empty(axes, "No session has two events.")
    shown = axes.scatter(
        dots["events"], 10 ** dots["pace"], c=dots["n"], s=8, norm=LogNorm(), cmap="viridis_r"
    )
    axes.figure.colorbar(shown, label="sessions", format=PLAIN).minorticks_off()
    use_log_scale(axes, "xy")
    axes.set(ylabel="events per minute, at the median gap")
    longest = max(*dots["events"], MIN_EVENTS_FOR_PACE + 1)
    axes.hlines(fast, MIN_EVENTS_FOR_PACE, longest, color=RED)
    axes.vlines(long, *axes.get_ylim(), color=RED)


def _draw_jumps(axes: Axes, jumps: pl.DataFrame, jump: float) -> None:
    """The most surprising article of each hour."""
    axes.set(
        title="the article of each hour that is most above its usual share", xlabel="hour (UTC)"
    )
    colours = np.where(jumps["surprise"] > jump, RED, SERIES[0])
    axes.scatter(jumps["when"], jumps["surprise"], c=colours, s=6)
    axes.axhline(jump, color=RED, linewidth=0.8)
    use_log_scale(axes, "y")
    axes.set(ylabel="standard deviations")


def _draw_hours(axes: Axes, by_hour: pl.DataFrame) -> None:
    """Sessions by day and hour of the day; silent hours are red."""
    days = (by_hour["when"].dt.date() - by_hour["when"][0].date()).dt.total_days()
    hour = by_hour["when"].dt.hour()
    grid = np.full((24, days[-1] + 1), np.nan)
    grid[hour, days] = by_hour["sessions"]
    first = date2num(by_hour["when"][0].date())
    extent = (first, first + grid.shape[1], 23.5, -0.5)
    most = max(np.nanquantile(grid, 0.99), 1)
    shown = axes.imshow(grid, cmap="Greens", aspect="auto", extent=extent, vmin=0, vmax=most)
    axes.figure.colorbar(shown, label="sessions in the hour", extend="max")
    silent = by_hour["silent"].to_numpy()
    axes.scatter(
        first + days.to_numpy()[silent] + 0.5, hour.to_numpy()[silent], color=RED, marker="s", s=10
    )
    axes.xaxis_date()
    axes.set(
        title="sessions by hour of the day; red: silent",
        xlabel="day (UTC)",
        ylabel="hour of the day (UTC)",
    )


def _draw_moments(axes: Axes, suspects: dict[str, pl.DataFrame], span: tuple[date, date]) -> None:
    """Days of the suspects of each class."""
    for place, (name, rows) in enumerate(suspects.items()):
        daily = rows["when"].dt.date().value_counts(name="n")
        axes.scatter(
            daily["when"],
            [place] * daily.height,
            s=10 + 10 * daily["n"].log(2),
            color=RED,
            alpha=0.5,
        )
        axes.text(
            0.005,
            place - 0.28,
            f"{name}: {rows.height:,}",
            transform=axes.get_yaxis_transform(),
            va="center",
        )
    axes.set(
        title="when (larger: more on that day)",
        xlabel="day (UTC)",
        ylabel="kind of suspect",
        yticks=[],
    )
    axes.set(ylim=(len(suspects) - 0.5, -0.6), xlim=[date2num(day) for day in span])


def surprises(events: pl.DataFrame) -> pl.DataFrame:
    """The article of each hour that is furthest above its usual share of the events.

    Columns: when, article, events, percent of the hour, usually (percent of all events), and
    surprise in standard deviations.
    """
    counts = events.group_by(pl.col("ts") // HOUR * HOUR, "aid").len("events")
    counts = counts.with_columns(
        hour=pl.sum("events").over("ts"), ever=pl.sum("events").over("aid")
    )
    expected = pl.col("hour") * pl.col("ever") / events.height
    counts = counts.with_columns(
        surprise=((pl.col("events") - expected) / (expected + 1).sqrt()).clip(0.01)
    )
    counts = counts.sort("surprise", "aid", descending=True)
    top = counts.unique("ts", keep="first", maintain_order=True)
    return top.select(
        "events",
        "surprise",
        when=pl.from_epoch("ts", "ms"),
        article="aid",
        percent=100 * pl.col("events") / pl.col("hour"),
        usually=100 * pl.col("ever") / events.height,
    ).select("when", "article", "events", "percent", "usually", "surprise")


def hours(events: pl.DataFrame) -> pl.DataFrame:
    """Sessions of every hour from the first event to the last, with `median` and `silent`.

    `median` is the median at that time of the day. An hour without events is silent if it is
    improbable: were all hours as usual, one such hour in the whole lake would have a chance of
    less than 1 % (Poisson). In a single day none is silent: nothing says what is usual.
    """
    hour = events.select(pl.col("ts") // HOUR, "session").unique()["ts"].to_numpy()
    rows = pl.DataFrame(
        {"hour": np.arange(hour.min(), hour.max() + 1), "sessions": np.bincount(hour - hour.min())}
    )
    rows = rows.with_columns(median=pl.median("sessions").over(pl.col("hour") % 24))
    silent = (pl.col("sessions") == 0) & (pl.col("median") > math.log(100 * rows.height))
    when = pl.from_epoch(pl.col("hour") * HOUR, "ms").alias("when")
    return rows.select(when, "sessions", "median", silent=silent)


def outages(by_hour: pl.DataFrame) -> pl.DataFrame:
    """Silent hours that follow each other as one row, the longest first."""
    stretch = pl.col("silent").rle_id().alias("stretch")
    silent = by_hour.with_columns(stretch).filter("silent")
    rows = silent.group_by("stretch").agg(
        pl.first("when"), hours=pl.len(), sessions_missing=pl.sum("median")
    )
    return rows.drop("stretch").sort("sessions_missing", "when", descending=True)


def repeated_clicks(events: pl.DataFrame) -> pl.DataFrame:
    """Sessions that click an article again within less than a second, by how often."""
    rows = events.filter(pl.col("type") == "clicks").sort("session", "aid", "ts")
    same = (pl.col("session") == pl.col("session").shift()) & (
        pl.col("aid") == pl.col("aid").shift()
    )
    again = rows.filter(same & (pl.col("ts").diff() < 1000))
    again = again.group_by("session", article="aid").agg(
        when=pl.from_epoch(pl.min("ts"), "ms"), times=pl.len()
    )
    again = again.select("when", "session", "article", "times")
    return again.sort("times", "session", "article", descending=True)


def orders_from_nowhere(events: pl.DataFrame) -> pl.DataFrame:
    """Orders of sessions that have neither clicked nor put anything into a cart until then."""
    before = events.filter(pl.col("type") != "orders").group_by("session").agg(since=pl.min("ts"))
    orders = events.filter(pl.col("type") == "orders").join(before, on="session", how="left")
    orders = orders.filter(pl.col("since").is_null() | (pl.col("since") > pl.col("ts")))
    orders = orders.group_by("session").agg(when=pl.from_epoch(pl.min("ts"), "ms"), orders=pl.len())
    return orders.select("when", "session", "orders").sort("orders", "session", descending=True)
