# %% [markdown]
# # What is in the lake
#
# Pictures of the table `events`, and of what was rejected on its way there. Open this file as a
# notebook (VS Code, PyCharm, JupyterLab with jupytext), or run `python -m notebooks.explore
# [FOLDER]`: it writes the pictures, and a page with all of them, into the folder (by default
# `explore` in KREISLAUF_HOME), and prints where the page is.

# %%
import os
import sys
from pathlib import Path

# Jupyter starts in the notebook's folder; the packages are in the checkout.
sys.path.insert(0, str(Path.cwd().parent if Path.cwd().name == "notebooks" else Path.cwd()))

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from kreislauf import lake
from kreislauf.settings import settings
from models.session_recommender.schema import EVENT_TYPES, EVENTS
from notebooks import suspects
from notebooks.pictures import (
    GREEN,
    GREY,
    SERIES,
    Page,
    Shown,
    logarithmic,
    nothing,
    panels,
    percent,
    stacked,
)

os.chdir(sys.path[0])  # So is the local lake.
ARGUMENTS = [] if "ipykernel" in sys.modules else sys.argv[1:]
PAGE = Page(Path(ARGUMENTS[0]) if ARGUMENTS else settings().home / "explore")
DAY = 86_400_000
WEEK = 7 * 86_400_000

# %% [markdown] ## Events and loads Times are UTC; days and weeks (of seven days) are counted from
# the first midnight. `gap` is the time since the event before in the same session, in ms; `pace` is
# how many events a minute the session's median gap would make.


# %%
def read_events() -> pl.DataFrame:
    """The newest version of the table. Exits with a message if there is nothing to look at."""
    try:
        found = lake.read(EVENTS)
    except lake.LakeError as error:
        raise SystemExit(f"{error} `ingest` in flows/ingest.py does it.") from None
    if found.is_empty():
        rules = lake.rejects(EVENTS)["rule"].value_counts(sort=True)["rule"].head(3)
        raise SystemExit(
            f"Table {EVENTS.name} has no rows: all lines were rejected. {'; '.join(rules)}"
        )
    since = pl.col("ts") - pl.col("ts").min() // DAY * DAY
    gap = pl.when(pl.col("session") == pl.col("session").shift()).then(pl.col("ts").diff())
    return found.with_columns(day=since // DAY, week=since // WEEK, gap=gap)


events = read_events()
loads = lake.history(EVENTS)
clicks = events.filter(pl.col("type") == "clicks")
LINES = sum(load.lines_in for load in loads if load.kind != "replay")
FIRST = int(events["ts"].to_numpy().min()) // DAY * DAY
DAYS = int(events["day"].to_numpy().max()) + 1
EDGES = np.datetime64(FIRST, "ms") + np.arange(DAYS + 1) * np.timedelta64(DAY, "ms")
sessions = events.group_by("session", maintain_order=True).agg(
    when=pl.from_epoch(pl.first("ts"), "ms"), week=pl.first("week"), events=pl.len(),
    pace=60_000 / pl.median("gap").clip(1), **{t: (pl.col("type") == t).any() for t in EVENT_TYPES},
)  # fmt: skip


# %%
def show_lake() -> Shown:
    """Events per day, and the rows of each load."""
    figure, (top, *below) = panels("What is in the lake, and how it came there", "AAA;BCD", 6)
    days = {
        t: np.bincount(events.filter(pl.col("type") == t)["day"], minlength=DAYS)
        for t in EVENT_TYPES
    }
    stacked(top, EDGES, days)
    top.set(title="events", xlabel="day (UTC)", ylabel="events per day")
    rows = {
        what: np.array([getattr(a, f"rows_{what}") for a in loads])
        for what in ("kept", "duplicate", "rejected")
    }
    kinds = np.array([load.kind for load in loads])
    for axes, (what, counts) in zip(below, rows.items(), strict=True):
        axes.set(
            title=f"{what} rows", xlabel="number of the load, oldest first", ylabel="rows per load"
        )
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        by_kind = {kind: counts * (kinds == kind) for kind in sorted(set(kinds))}
        stacked(axes, np.arange(len(loads) + 1) + 0.5, by_kind, f"no {what} rows")
    daily = np.bincount(events["day"])
    brought = sum(load.rows_in for load in loads)
    types = ", ".join(f"{percent(n.sum(), events.height)} {t}" for t, n in days.items())
    fates = ", ".join(f"{percent(n.sum(), brought)} {what}" for what, n in rows.items())
    return PAGE.show("lake", figure, (
        f"{events.height:,} events ({types}) of {sessions.height:,} sessions, {events['aid'].n_unique():,} articles, "
        f"{EDGES[0]:.10} to {EDGES[-2]:.10}. The median day has {np.median(daily):,.0f} events, the fullest "
        f"({EDGES[daily.argmax()]:.10}) {daily.max():,}; {(daily == 0).sum()} of {DAYS} days have none. Loads: "
        f"{len(loads):,}, with {brought:,} rows: {fates}."
    ))  # fmt: skip


show_lake()

# %% [markdown]
# ## What was rejected, and why
# What is in quarantine now: lines that a replay could load are no longer there.


# %%
def show_rejects() -> Shown:
    """Lines in quarantine by rule and by source, with examples."""
    figure, (left, right) = panels("What was rejected, and why", "AB", 5)
    general = (
        pl.col("rule").str.replace_all(r"\[\d+\]", "[...]").str.replace_all(r" \(byte \d+\)", "")
    )
    rejected = lake.rejects(EVENTS).with_columns(general, pl.col("raw").bin.slice(0, 200))
    if rejected.is_empty():
        nothing(left, "Nothing is in quarantine.")
        nothing(right, "Nothing is in quarantine.")
        return PAGE.show("rejects", figure, f"Of {LINES:,} lines that came, none is in quarantine.")
    rules = (
        rejected.group_by("reason", "rule")
        .len("lines")
        .sort("lines", "rule", descending=[True, False])
    )
    colours = dict(zip(rules["reason"].unique(maintain_order=True), SERIES * 3, strict=False))
    top = rules.head(10).reverse()
    labels = [f"{reason}\n{rule[:52]}" for reason, rule, _ in top.rows()]
    left.barh(
        range(top.height),
        top["lines"],
        color=[colours[r] for r in top["reason"]],
        tick_label=labels,
    )
    left.set(title="by rule (at most ten)", xlabel="lines in quarantine")
    worst, most = show_sources(right, rejected, colours)
    examples = rules.join(
        rejected.group_by("reason", "rule").head(3), on=["reason", "rule"], maintain_order="left"
    )
    text = pl.col("raw").map_elements(lambda raw: raw.decode(errors="backslashreplace"), pl.String)
    examples = examples.head(45).select(
        "reason", "rule", "source", "line", text.alias("begins with")
    )
    reason, rule, lines = rules.row(0)
    return PAGE.show("rejects", figure, (
        f"{rejected.height:,} lines are in quarantine, {percent(rejected.height, LINES)} of the {LINES:,} that came. "
        f"Most frequent is {reason} ({rule}): {lines:,} lines. Most lines, {most:,}, are from {worst}."
    ), {"Up to three lines of each rule": examples})  # fmt: skip


def show_sources(axes: Axes, rejected: pl.DataFrame, colours: dict[str, str]) -> tuple[str, int]:
    """Lines by source and reason; returns the worst source and its lines."""
    sources = rejected["source"].value_counts(sort=True, name="lines").head(10)
    counts = (
        rejected.group_by("source", "reason")
        .len()
        .pivot("reason", index="source", values="len")
        .fill_null(0)
    )
    counts = sources.reverse().join(counts, on="source", maintain_order="left")
    place = np.zeros(sources.height)
    for reason, colour in colours.items():
        axes.barh(range(counts.height), counts[reason], left=place, color=colour, label=reason)
        place += counts[reason].to_numpy()
    axes.set_yticks(range(counts.height), ["…" * (len(s) > 40) + s[-40:] for s in counts["source"]])
    axes.set(title="by source (at most ten)", xlabel="lines in quarantine")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return sources.row(0)  # type: ignore[return-value]


show_rejects()

# %% [markdown] ## How popularity moves Clicks only. An article is new on the day on which the lake
# first has it: on the first days, nearly all are.


# %%
def show_popularity() -> Shown:
    """How long favourites last, how alike the weeks are, how concentrated clicks are, how much is
    new."""
    figure, (last, alike, few, new) = panels("How popularity moves", "AB;CD", 7.5)
    weekly = (
        clicks.group_by("week", "aid")
        .len("clicks")
        .sort("week", "clicks", "aid", descending=[False, True, False])
    )
    if weekly.is_empty():
        for axes in (last, alike, few, new):
            nothing(axes, "The lake has no clicks.")
        return PAGE.show("popularity", figure, "The lake has no clicks.")
    shared = shared_favourites(weekly)
    ends = (0.5, len(shared) + 0.5)
    image = alike.imshow(
        shared, cmap="Greens", vmin=0, vmax=100, extent=(*ends, *ends[::-1]), aspect="auto"
    )
    alike.set(
        title="top 100 that two weeks have in common",
        xlabel="number of the week",
        ylabel="number of the week",
    )
    figure.colorbar(image, label="% of the articles")
    for axis in (alike.xaxis, alike.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    next_to = np.diagonal(shared, 1)[~np.isnan(np.diagonal(shared, 1))]
    moved = (
        f"Of the top 100, the first and the last week share {shared[weekly['week'][0], -1]:.0f} %"
    )
    moved += f", neighbouring weeks {next_to.mean():.0f} % on average." if len(next_to) else "."
    said = [show_lasting(last, weekly), moved, show_concentration(few, weekly), show_unseen(new)]
    return PAGE.show("popularity", figure, " ".join(said))


def show_lasting(axes: Axes, weekly: pl.DataFrame) -> str:
    """Share of the weeks' clicks that the favourites of the first one have."""
    favourites = weekly.filter(pl.col("week") == weekly["week"][0])["aid"]
    for k, colour in zip((500, 100, 20), SERIES, strict=False):
        kept = pl.col("clicks").filter(pl.col("aid").is_in(favourites.head(k).implode())).sum()
        shares = weekly.group_by("week", maintain_order=True).agg(
            percent=100 * kept / pl.sum("clicks")
        )
        axes.plot(
            EDGES[7 * shares["week"]], shares["percent"], "o-", color=colour, label=f"its top {k}"
        )
    axes.set(
        title="what became of the first week's favourites",
        xlabel="week from",
        ylabel="% of the week's clicks",
    )
    axes.set(ylim=0)
    axes.legend()
    first = shares["percent"][0]
    final = shares["percent"][-1]
    return f"The top 20 of the first week have {first:.3g} % of its clicks, and {final:.3g} % of the last week's."


def shared_favourites(weekly: pl.DataFrame) -> np.ndarray:
    """Percent of the articles that the top 100 of two weeks share, (weeks, weeks); NaN for weeks
    without clicks."""
    top = weekly.group_by("week", maintain_order=True).head(100)
    sizes = np.bincount(top["week"]).astype(float)
    pairs = top.join(top, on="aid").group_by("week", "week_right").len()
    shared = np.zeros((len(sizes), len(sizes)))
    shared[pairs["week"], pairs["week_right"]] = pairs["len"]
    sizes[sizes == 0] = np.nan
    return 100 * shared / np.minimum.outer(sizes, sizes)


def show_concentration(axes: Axes, weekly: pl.DataFrame) -> str:
    """How few articles take how many of the clicks, in the first week, the last one, and ever."""
    ever = weekly.group_by("aid").agg(pl.sum("clicks")).sort("clicks", descending=True)
    first, final = (weekly.filter(pl.col("week") == weekly["week"][i]) for i in (0, -1))
    for label, counts, colour in (
        ("first week", first, GREEN),
        ("last week", final, SERIES[1]),
        ("ever", ever, GREY),
    ):
        share = 100 * counts["clicks"].cum_sum() / counts["clicks"].sum()
        axes.plot(100 * np.arange(1, len(share) + 1) / len(share), share, color=colour, label=label)
    axes.set(
        title="how few take how much",
        xlabel="% of the articles, most clicked first",
        ylabel="% of the clicks",
    )
    axes.legend()
    logarithmic(axes, "x")
    return f"The most clicked 1 % of the articles have {share[max(len(share) // 100, 1) - 1]:.3g} % of all clicks."


def show_unseen(axes: Axes) -> str:
    """Share of the clicks on articles that the lake did not have on an earlier day."""
    axes.set(
        title="clicks on articles never seen before that day",
        xlabel="day (UTC)",
        ylabel="% of the day's clicks",
    )
    fresh = pl.col("day") == pl.col("since")
    daily = clicks.join(events.group_by("aid").agg(since=pl.min("day")), on="aid").group_by("day").agg(
        clicks=pl.len(), new=fresh.sum()
    ).filter(pl.col("day") > 0).sort("day")  # fmt: skip
    if daily.is_empty():
        nothing(axes, "There is only one day.")
        return ""
    axes.plot(
        EDGES[daily["day"]], 100 * daily["new"] / daily["clicks"], ".-", color=GREEN, linewidth=0.8
    )
    axes.set(ylim=0)
    new, of = (int(daily[name].tail(7).sum()) for name in ("new", "clicks"))
    return f"Of the clicks of the last seven days, {percent(new, of)} are on articles new on their day."


show_popularity()

# %% [markdown]
# ## How session length moves
# A session belongs to the week in which it begins.


# %%
def show_sessions() -> Shown:
    """Events per session, also by week; time between events; from clicks to carts to orders."""
    figure, (lengths, weeks, gaps, steps) = panels("How session length moves", "AB;CD", 7.5)
    counts = sessions["events"].value_counts(name="sessions")
    lengths.plot(counts["events"], counts["sessions"], ".", color=GREEN)
    lengths.set(title="sessions by length", xlabel="events in the session", ylabel="sessions")
    logarithmic(lengths, "xy")
    weekly = (
        sessions.group_by("week")
        .agg(pl.median("events"), p95=pl.quantile("events", 0.95))
        .sort("week")
    )
    for column, label, colour in (
        ("p95", "95th percentile", SERIES[1]),
        ("events", "median", GREEN),
    ):
        weeks.plot(EDGES[7 * weekly["week"]], weekly[column], "o-", color=colour, label=label)
    weeks.set(title="length by week", xlabel="week from", ylabel="events in the session", ylim=0)
    weeks.legend()
    middle, p95, longest = (int(np.quantile(sessions["events"], q)) for q in (0.5, 0.95, 1))
    low = weekly["events"].to_numpy().min()
    high = weekly["events"].to_numpy().max()
    return PAGE.show("sessions", figure, (
        f"The median session has {middle} events, one in twenty {p95} or more, the longest {longest}, and "
        f"{(sessions['events'] >= 100).sum():,} have hundreds; the weekly median lies between {low:g} and {high:g}. "
        f"{show_gaps(gaps)} {show_conversion(steps)}"
    ))  # fmt: skip


def show_gaps(axes: Axes) -> str:
    """Time between events, and whether a real clock measured it."""
    seconds = events["gap"].drop_nulls() / 1000
    axes.set(
        title="time between the events of a session",
        xlabel="seconds to the next event",
        ylabel="pairs of events",
    )
    if seconds.is_empty():
        nothing(axes, "No session has two events.")
        return "No session has two events."
    counts, bins = np.histogram(
        seconds.clip(1e-3), np.geomspace(1e-3, 1.01 * max(*seconds.top_k(1), 1), 100)
    )
    axes.stairs(counts, bins, fill=True, color=SERIES[0])
    logarithmic(axes, "x")
    usual, times = seconds.value_counts(sort=True).row(0)
    clock = f" {percent(times, len(seconds))} of the steps take exactly {usual:g} s: a made-up clock, which tells no pace."
    return f"The median step takes {np.median(seconds):,.3g} s." + clock * (
        suspects.STEADY < len(seconds) < 2 * times
    )


def show_conversion(axes: Axes) -> str:
    """How many sessions with clicks have carts, and how many with carts have orders, by week."""
    axes.set(
        title="from clicks to carts to orders",
        xlabel="week from",
        ylabel="% of the sessions with the one before",
    )
    said = []
    for before, after, colour in (("clicks", "carts", SERIES[1]), ("carts", "orders", SERIES[2])):
        able = sessions.filter(before)
        weekly = able.group_by("week").agg(pl.mean(after)).sort("week")
        if able[after].any():
            axes.plot(
                EDGES[7 * weekly["week"]],
                100 * weekly[after],
                "o-",
                color=colour,
                label=f"{before} to {after}",
            )
            said.append(
                f"{percent(int(able[after].sum()), able.height)} of the sessions with {before} have {after}"
            )
    if not said:
        nothing(axes, "No session with clicks has carts.")
        return "No session with clicks has carts."
    axes.set(ylim=0)
    axes.legend()
    return "; ".join(said) + "."


show_sessions()

# %% [markdown] ## Which events are suspicious A session is too fast or too long, and an article too
# frequent in an hour, beyond 3.5 robust standard deviations of what is usual; an hour is silent if
# it has no event where that could not be chance. `notebooks/suspects.py` says more.

# %%
suspects.show_suspects(PAGE, events, sessions)

# %%
print(PAGE.write("What is in the lake"))
