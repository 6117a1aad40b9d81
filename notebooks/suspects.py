"""Events that no visitor of a shop makes, and hours that no open shop has.

Limits follow from the data: 3.5 robust standard deviations (by the median absolute deviation) above
the median, both of the logarithm, and at least twice the median (a pace: five times, because people
differ). An article also needs five deviations in an hour, because there are many articles and
hours. Frames begin with the column `when`, in UTC.
"""

import math
from datetime import date, timedelta

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.dates import date2num

from notebooks.pictures import PLAIN, RED, SERIES, Page, Shown, logarithmic, nothing, panels

HOUR = 3_600_000
SOME = 60.0
"""The limit where there is nothing to learn one from: one event a second, if it is a pace."""
STEADY = 10
"""Events that a session must have before its pace means something."""


def limit(values: pl.Series, times: float = 2) -> float:
    """Above it, which is at least so many times the median, a positive value is suspicious."""
    logs = values.drop_nulls().log().to_numpy()
    if not len(logs):
        return SOME
    away = np.abs(logs - np.median(logs))
    spread = (
        1.4826 * np.median(away) or 1.2533 * away.mean()
    )  # The mean where most values are the same.
    return float(np.exp(np.median(logs) + max(3.5 * spread, math.log(times))))


def show_suspects(page: Page, events: pl.DataFrame, sessions: pl.DataFrame) -> Shown:
    """One picture of all suspects; the worst of each kind below it."""
    figure, (paces, articles, silence, moments) = panels(
        "Which events are suspicious", "AB;CC;DD", 10
    )
    steady = sessions.filter(pl.col("events") >= STEADY)
    fast = limit(steady["pace"], times=5)
    long = limit(sessions["events"])
    jumps = surprises(events)
    by_hour = hours(events)
    jump = max(limit(jumps["surprise"]), 5)
    found = {
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
    _draw_moments(moments, found, (first - timedelta(days=1), last + timedelta(days=1)))
    counts = "; ".join(f"{what}: {rows.height:,}" for what, rows in found.items())
    return page.show(
        "suspects",
        figure,
        f"Found: {counts}.",
        {what: rows.head(5) for what, rows in found.items()},
    )


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
        return nothing(axes, "No session has two events.")
    shown = axes.scatter(
        dots["events"], 10 ** dots["pace"], c=dots["n"], s=8, norm=LogNorm(), cmap="viridis_r"
    )
    axes.figure.colorbar(shown, label="sessions", format=PLAIN).minorticks_off()
    logarithmic(axes, "xy")
    axes.set(ylabel="events per minute, at the median gap")
    axes.hlines(fast, STEADY, max(*dots["events"], STEADY + 1), color=RED)
    axes.vlines(long, *axes.get_ylim(), color=RED)


def _draw_jumps(axes: Axes, jumps: pl.DataFrame, jump: float) -> None:
    """The most surprising article of each hour."""
    axes.set(
        title="the article of each hour that is most above its usual share", xlabel="hour (UTC)"
    )
    colours = np.where(jumps["surprise"] > jump, RED, SERIES[0])
    axes.scatter(jumps["when"], jumps["surprise"], c=colours, s=6)
    axes.axhline(jump, color=RED, linewidth=0.8)
    logarithmic(axes, "y")
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


def _draw_moments(axes: Axes, found: dict[str, pl.DataFrame], span: tuple[date, date]) -> None:
    """On which days suspects of each kind are."""
    for place, (what, rows) in enumerate(found.items()):
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
            f"{what}: {rows.height:,}",
            transform=axes.get_yaxis_transform(),
            va="center",
        )
    axes.set(
        title="when (larger: more on that day)",
        xlabel="day (UTC)",
        ylabel="kind of suspect",
        yticks=[],
    )
    axes.set(ylim=(len(found) - 0.5, -0.6), xlim=[date2num(day) for day in span])


def surprises(events: pl.DataFrame) -> pl.DataFrame:
    """The article of each hour that is furthest above its usual share of the events, in standard
    deviations."""
    counts = events.group_by(pl.col("ts") // HOUR * HOUR, "aid").len("events")
    counts = counts.with_columns(
        hour=pl.sum("events").over("ts"), ever=pl.sum("events").over("aid")
    )
    usual = pl.col("hour") * pl.col("ever") / events.height
    counts = counts.with_columns(
        surprise=((pl.col("events") - usual) / (usual + 1).sqrt()).clip(0.01)
    )
    return counts.sort("surprise", "aid", descending=True).unique("ts", keep="first", maintain_order=True).select(
        "events", "surprise", when=pl.from_epoch("ts", "ms"), article="aid",
        percent=100 * pl.col("events") / pl.col("hour"), usually=100 * pl.col("ever") / events.height,
    ).select("when", "article", "events", "percent", "usually", "surprise")  # fmt: skip


def hours(events: pl.DataFrame) -> pl.DataFrame:
    """Sessions of every hour from the first event to the last, the usual number at that time of the
    day, `silent`.

    An hour without events is silent if, were all hours as usual, one such hour in the whole lake
    had a chance of less than 1 % (Poisson). In a single day none is: nothing says what is usual.
    """
    hour = events.select(pl.col("ts") // HOUR, "session").unique()["ts"].to_numpy()
    found = pl.DataFrame(
        {"hour": np.arange(hour.min(), hour.max() + 1), "sessions": np.bincount(hour - hour.min())}
    )
    found = found.with_columns(usual=pl.median("sessions").over(pl.col("hour") % 24))
    silent = (pl.col("sessions") == 0) & (pl.col("usual") > math.log(100 * found.height))
    return found.select(
        pl.from_epoch(pl.col("hour") * HOUR, "ms").alias("when"), "sessions", "usual", silent=silent
    )


def outages(by_hour: pl.DataFrame) -> pl.DataFrame:
    """Silent hours that follow each other as one row, the longest first."""
    stretch = pl.col("silent").rle_id().alias("stretch")
    rows = by_hour.with_columns(stretch).filter("silent").group_by("stretch").agg(
        pl.first("when"), hours=pl.len(), sessions_missing=pl.sum("usual")
    )  # fmt: skip
    return rows.drop("stretch").sort("sessions_missing", "when", descending=True)


def repeated_clicks(events: pl.DataFrame) -> pl.DataFrame:
    """Sessions that click an article again within less than a second, by how often."""
    rows = events.filter(pl.col("type") == "clicks").sort("session", "aid", "ts")
    same = (pl.col("session") == pl.col("session").shift()) & (
        pl.col("aid") == pl.col("aid").shift()
    )
    again = rows.filter(same & (pl.col("ts").diff() < 1000)).group_by("session", article="aid").agg(
        when=pl.from_epoch(pl.min("ts"), "ms"), times=pl.len()
    )  # fmt: skip
    return again.select("when", "session", "article", "times").sort(
        "times", "session", "article", descending=True
    )


def orders_from_nowhere(events: pl.DataFrame) -> pl.DataFrame:
    """Orders of sessions that have neither clicked nor put anything into a cart until then."""
    before = events.filter(pl.col("type") != "orders").group_by("session").agg(since=pl.min("ts"))
    orders = events.filter(pl.col("type") == "orders").join(before, on="session", how="left")
    found = orders.filter(pl.col("since").is_null() | (pl.col("since") > pl.col("ts")))
    found = found.group_by("session").agg(when=pl.from_epoch(pl.min("ts"), "ms"), orders=pl.len())
    return found.select("when", "session", "orders").sort("orders", "session", descending=True)
