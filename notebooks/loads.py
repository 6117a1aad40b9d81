"""Pictures of what came: events per day, rows of each load, and lines in quarantine."""

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from kreislauf import lake
from models.session_recommender.schema import EVENT_TYPES, EVENTS
from notebooks.lake_data import LakeData
from notebooks.pictures import (
    SERIES,
    Page,
    Shown,
    draw_empty,
    draw_stacked,
    make_panels,
    percent,
)

MAX_BARS = 10
"""Maximum rules and sources that have a bar."""
MAX_EXAMPLES = 45
"""Maximum lines in quarantine that are shown as they came."""


def show_loads(page: Page, data: LakeData) -> Shown:
    """Events per day, and the rows of each load."""
    figure, (top, *below) = make_panels("What is in the lake, and how it came there", "AAA;BCD", 6)
    by_type = {
        name: np.bincount(data.events.filter(pl.col("type") == name)["day"], minlength=data.days)
        for name in EVENT_TYPES
    }
    draw_stacked(top, data.edges, by_type)
    top.set(title="events", xlabel="day (UTC)", ylabel="events per day")
    rows = {
        "kept": np.array([load.rows_kept for load in data.loads]),
        "duplicate": np.array([load.rows_duplicate for load in data.loads]),
        "rejected": np.array([load.rows_rejected for load in data.loads]),
    }
    for axes, (fate, counts) in zip(below, rows.items(), strict=True):
        _draw_loads(axes, data, fate, counts)
    return page.show("lake", figure, _describe(data, by_type, rows))


def _draw_loads(axes: Axes, data: LakeData, fate: str, counts: np.ndarray) -> None:
    """Rows of each load that had one fate, coloured by the origin of the load."""
    axes.set(
        title=f"{fate} rows", xlabel="number of the load, oldest first", ylabel="rows per load"
    )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    origins = np.array([load.kind for load in data.loads])
    by_origin = {origin: counts * (origins == origin) for origin in sorted(set(origins))}
    draw_stacked(axes, np.arange(len(data.loads) + 1) + 0.5, by_origin, f"no {fate} rows")


def _describe(data: LakeData, by_type: dict[str, np.ndarray], rows: dict[str, np.ndarray]) -> str:
    """The picture in words."""
    events = data.events
    daily = np.bincount(events["day"])
    brought = sum(load.rows_in for load in data.loads)
    types = ", ".join(f"{percent(n.sum(), events.height)} {name}" for name, n in by_type.items())
    fates = ", ".join(f"{percent(n.sum(), brought)} {fate}" for fate, n in rows.items())
    return (
        f"{events.height:,} events ({types}) of {data.sessions.height:,} sessions, "
        f"{events['aid'].n_unique():,} articles, {data.edges[0]:.10} to {data.edges[-2]:.10}. "
        f"The median day has {np.median(daily):,.0f} events, the fullest "
        f"({data.edges[daily.argmax()]:.10}) {daily.max():,}; "
        f"{(daily == 0).sum()} of {data.days} days have none. "
        f"Loads: {len(data.loads):,}, with {brought:,} rows: {fates}."
    )


def show_rejects(page: Page, data: LakeData) -> Shown:
    """Lines in quarantine by rule and by source, with examples."""
    figure, (left, right) = make_panels("What was rejected, and why", "AB", 5)
    rejected = read_rejects()
    if rejected.is_empty():
        draw_empty(left, "Nothing is in quarantine.")
        draw_empty(right, "Nothing is in quarantine.")
        conclusion = f"Of {data.lines:,} lines that came, none is in quarantine."
        return page.show("rejects", figure, conclusion)
    rules = rejected.group_by("reason", "rule").len("lines")
    rules = rules.sort("lines", "rule", descending=[True, False])
    reasons = rules["reason"].unique(maintain_order=True)
    colours = dict(zip(reasons, SERIES * 3, strict=False))
    _draw_rules(left, rules, colours)
    worst, most = _draw_sources(right, rejected, colours)
    reason, rule, lines = rules.row(0)
    conclusion = (
        f"{rejected.height:,} lines are in quarantine, {percent(rejected.height, data.lines)} of "
        f"the {data.lines:,} that came. Most frequent is {reason} ({rule}): {lines:,} lines. "
        f"Most lines, {most:,}, are from {worst}."
    )
    tables = {"Up to three lines of each rule": _examples(rules, rejected)}
    return page.show("rejects", figure, conclusion, tables)


def read_rejects() -> pl.DataFrame:
    """Lines in quarantine; their rules without positions, so that equal mistakes are counted."""
    rule = pl.col("rule").str.replace_all(r"\[\d+\]", "[...]")
    rule = rule.str.replace_all(r" \(byte \d+\)", "")
    return lake.rejects(EVENTS).with_columns(rule, pl.col("raw").bin.slice(0, 200))


def _examples(rules: pl.DataFrame, rejected: pl.DataFrame) -> pl.DataFrame:
    """Up to three lines of each rule, the most frequent rules first."""
    lines = rejected.group_by("reason", "rule").head(3)
    lines = rules.join(lines, on=["reason", "rule"], maintain_order="left").head(MAX_EXAMPLES)
    text = pl.col("raw").map_elements(lambda raw: raw.decode(errors="backslashreplace"), pl.String)
    return lines.select("reason", "rule", "source", "line", text.alias("begins with"))


def _draw_rules(axes: Axes, rules: pl.DataFrame, colours: dict[str, str]) -> None:
    """Lines by rule, the most frequent on top."""
    top = rules.head(MAX_BARS).reverse()
    labels = [f"{reason}\n{rule[:52]}" for reason, rule, _ in top.rows()]
    bar_colours = [colours[reason] for reason in top["reason"]]
    axes.barh(range(top.height), top["lines"], color=bar_colours, tick_label=labels)
    axes.set(title="by rule (at most ten)", xlabel="lines in quarantine")


def _draw_sources(axes: Axes, rejected: pl.DataFrame, colours: dict[str, str]) -> tuple[str, int]:
    """Lines by source and reason; returns the worst source and its lines."""
    sources = rejected["source"].value_counts(sort=True, name="lines").head(MAX_BARS)
    counts = rejected.group_by("source", "reason").len()
    counts = counts.pivot("reason", index="source", values="len").fill_null(0)
    counts = sources.reverse().join(counts, on="source", maintain_order="left")
    left = np.zeros(sources.height)
    for reason, colour in colours.items():
        axes.barh(range(counts.height), counts[reason], left=left, color=colour, label=reason)
        left += counts[reason].to_numpy()
    labels = ["…" * (len(name) > 40) + name[-40:] for name in counts["source"]]
    axes.set_yticks(range(counts.height), labels)
    axes.set(title="by source (at most ten)", xlabel="lines in quarantine")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return sources.row(0)  # type: ignore[return-value]
