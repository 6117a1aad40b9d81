"""Plots of a monitored window for a Markdown page."""

import base64
import io
from collections.abc import Sequence

import polars as pl
from matplotlib.figure import Figure

from kreislauf.monitoring.limits import Signal

ALARM_COLOUR = "#b3261e"
CALM_COLOUR = "#0b6e4f"
VERSION_COLOURS = (CALM_COLOUR, "#5b7fb5")
"""Of neighbouring versions; a legend of three months of them would hide the curve."""
MAX_DEVIATION = 4.0
"""Largest deviation that is drawn; a signal that is farther away ends at the edge."""


def signals(signals: Sequence[Signal]) -> str:
    """How far each signal is from its mean, in tolerances, as a `data:` address."""
    figure = Figure(figsize=(7, 0.5 + 0.28 * len(signals)))
    axes = figure.subplots()
    axes.axvspan(-1, 1, color="#e7f6ec")
    upwards = list(reversed(signals))
    names = [signal.name for signal in upwards]
    deviations = [max(-MAX_DEVIATION, min(MAX_DEVIATION, s.deviation)) for s in upwards]
    palette = {True: ALARM_COLOUR, False: CALM_COLOUR}
    axes.barh(names, deviations, color=[palette[s.alarm] for s in upwards], height=0.6)
    label = "deviation from the mean, in tolerances; beyond 1 is an alarm"
    axes.set(xlim=(-MAX_DEVIATION, MAX_DEVIATION), xlabel=label)
    axes.spines[["top", "right"]].set_visible(False)
    return data_address(figure)


def history(windows: pl.DataFrame, metric: str) -> str:
    """The live quality in each window, version by version, as a `data:` address; `windows` are rows
    of the table of that name, of one model type."""
    figure = Figure(figsize=(7, 2.8))
    axes = figure.subplots()
    quality = windows.filter(pl.col("signal") == metric)
    quality = quality.unique(["version", "start", "end"]).sort("end")
    title = "live quality by window (red: not stable)"
    for number, (_, points) in enumerate(sorted(quality.group_by("version"))):
        days = pl.from_epoch(points["end"], "ms").to_numpy()
        colour = VERSION_COLOURS[number % len(VERSION_COLOURS)]
        axes.plot(days, points["value"].to_numpy(), marker="o", color=colour)
    if quality.height:
        ends = dict.fromkeys([quality["version"].min(), quality["version"].max()])
        title += f"; version {' to '.join(map(str, ends))}"
    alarms = quality.filter(~pl.col("verdict").is_in(["stable", "not enough data"]))
    days = pl.from_epoch(alarms["end"], "ms").to_numpy()
    axes.scatter(days, alarms["value"].to_numpy(), color=ALARM_COLOUR, zorder=3)
    axes.set(ylabel=metric, title=title)
    axes.spines[["top", "right"]].set_visible(False)
    figure.autofmt_xdate()
    return data_address(figure)


def data_address(figure: Figure) -> str:
    """The figure as a `data:` address, which needs no other file."""
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=80, bbox_inches="tight")
    return f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"
