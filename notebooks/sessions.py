"""Pictures of sessions: their length, the time between events, and from clicks to orders."""

import numpy as np
import polars as pl
from matplotlib.axes import Axes

from notebooks import suspects
from notebooks.lake_data import LakeData
from notebooks.pictures import (
    GREEN,
    SERIES,
    Page,
    Shown,
    draw_empty,
    make_panels,
    percent,
    use_log_scale,
)


def show_sessions(page: Page, data: LakeData) -> Shown:
    """Events per session, also by week; time between events; from clicks to carts to orders."""
    figure, (lengths, weeks, gaps, steps) = make_panels("How session length moves", "AB;CD", 7.5)
    conclusion = " ".join(
        [
            _draw_lengths(lengths, data) + _draw_weeks(weeks, data),
            _draw_gaps(gaps, data),
            _draw_conversion(steps, data),
        ]
    )
    return page.show("sessions", figure, conclusion)


def _draw_lengths(axes: Axes, data: LakeData) -> str:
    """Sessions by their number of events."""
    lengths = data.sessions["events"]
    counts = lengths.value_counts(name="sessions")
    axes.plot(counts["events"], counts["sessions"], ".", color=GREEN)
    axes.set(title="sessions by length", xlabel="events in the session", ylabel="sessions")
    use_log_scale(axes, "xy")
    median, p95, longest = (int(np.quantile(lengths, q)) for q in (0.5, 0.95, 1))
    return (
        f"The median session has {median} events, one in twenty {p95} or more, the longest "
        f"{longest}, and {(lengths >= 100).sum():,} have hundreds; "
    )


def _draw_weeks(axes: Axes, data: LakeData) -> str:
    """Length of the sessions by week."""
    weekly = (
        data.sessions.group_by("week")
        .agg(pl.median("events"), p95=pl.quantile("events", 0.95))
        .sort("week")
    )
    for column, label, colour in (
        ("p95", "95th percentile", SERIES[1]),
        ("events", "median", GREEN),
    ):
        week_starts = data.edges[7 * weekly["week"]]
        axes.plot(week_starts, weekly[column], "o-", color=colour, label=label)
    axes.set(title="length by week", xlabel="week from", ylabel="events in the session", ylim=0)
    axes.legend()
    low = weekly["events"].to_numpy().min()
    high = weekly["events"].to_numpy().max()
    return f"the weekly median lies between {low:g} and {high:g}."


def _draw_gaps(axes: Axes, data: LakeData) -> str:
    """Time between events, and whether a real clock measured it."""
    seconds = data.events["gap"].drop_nulls() / 1000
    axes.set(
        title="time between the events of a session",
        xlabel="seconds to the next event",
        ylabel="pairs of events",
    )
    if seconds.is_empty():
        draw_empty(axes, "No session has two events.")
        return "No session has two events."
    longest = max(*seconds.top_k(1), 1)
    counts, bins = np.histogram(seconds.clip(1e-3), np.geomspace(1e-3, 1.01 * longest, 100))
    axes.stairs(counts, bins, fill=True, color=SERIES[0])
    use_log_scale(axes, "x")
    conclusion = f"The median step takes {np.median(seconds):,.3g} s."
    mode, times = seconds.value_counts(sort=True).row(0)
    if suspects.MIN_EVENTS_FOR_PACE < len(seconds) < 2 * times:
        conclusion += (
            f" {percent(times, len(seconds))} of the steps take exactly {mode:g} s: "
            "a made-up clock, which tells no pace."
        )
    return conclusion


def _draw_conversion(axes: Axes, data: LakeData) -> str:
    """How many sessions with clicks have carts, and how many with carts have orders, by week."""
    axes.set(
        title="from clicks to carts to orders",
        xlabel="week from",
        ylabel="% of the sessions with the one before",
    )
    conclusions = []
    for before, after, colour in (("clicks", "carts", SERIES[1]), ("carts", "orders", SERIES[2])):
        sessions = data.sessions.filter(before)
        if not sessions[after].any():
            continue
        weekly = sessions.group_by("week").agg(pl.mean(after)).sort("week")
        week_starts = data.edges[7 * weekly["week"]]
        label = f"{before} to {after}"
        axes.plot(week_starts, 100 * weekly[after], "o-", color=colour, label=label)
        share = percent(int(sessions[after].sum()), sessions.height)
        conclusions.append(f"{share} of the sessions with {before} have {after}")
    if not conclusions:
        draw_empty(axes, "No session with clicks has carts.")
        return "No session with clicks has carts."
    axes.set(ylim=0)
    axes.legend()
    return "; ".join(conclusions) + "."
