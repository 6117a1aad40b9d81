"""What a monitored window looks like, as pictures for a Markdown page."""

import base64
import io
from collections.abc import Sequence

import polars as pl
from matplotlib.figure import Figure

from kreislauf.monitoring.limits import Signal

OFF = "#b3261e"
FINE = "#0b6e4f"
FARTHEST = 4.0
"""Limits from usual that are drawn; a signal that is farther away ends at the edge."""


def signals(told: Sequence[Signal]) -> str:
    """How far each signal is from usual, in limits, as a `data:` address."""
    figure = Figure(figsize=(7, 0.5 + 0.28 * len(told)))
    axes = figure.subplots()
    axes.axvspan(-1, 1, color="#e7f6ec")
    offs = [max(-FARTHEST, min(FARTHEST, s.off)) for s in reversed(told)]
    colours = [OFF if s.alarm else FINE for s in reversed(told)]
    axes.barh([s.name for s in reversed(told)], offs, color=colours, height=0.6)
    axes.set(xlim=(-FARTHEST, FARTHEST), xlabel="limits from usual; beyond 1 is an alarm")
    axes.spines[["top", "right"]].set_visible(False)
    return address(figure)


def history(windows: pl.DataFrame, metric: str) -> str:
    """The live quality in each window, version by version, as a `data:` address; `windows` are rows
    of the table of that name, of one model type."""
    figure = Figure(figsize=(7, 2.8))
    axes = figure.subplots()
    found = (
        windows.filter(pl.col("signal") == metric).unique(["version", "start", "end"]).sort("end")
    )
    for (version,), part in sorted(found.group_by("version")):
        days = pl.from_epoch(part["end"], "ms").to_numpy()
        axes.plot(days, part["value"].to_numpy(), marker="o", label=f"version {version}")
        loud = ~part["verdict"].is_in(["quiet", "not enough data"]).to_numpy()
        axes.scatter(days[loud], part["value"].to_numpy()[loud], color=OFF, zorder=3)
    axes.set(ylabel=metric, title="live quality by window (red: no quiet one)")
    axes.spines[["top", "right"]].set_visible(False)
    figure.autofmt_xdate()
    if found.height:
        axes.legend(frameon=False)
    return address(figure)


def address(figure: Figure) -> str:
    """A picture that needs no other file."""
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=80, bbox_inches="tight")
    return f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"
