"""The curve of the demo: how good the live model's answers are, day by day."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

LIVE = "#0b6e4f"
FROZEN = "#9aa3ad"
BANDS = ("#f3f4f6", "#ffffff")


@dataclass(frozen=True)
class Day:
    """Recall@20 over every prefix of the sessions of a day."""

    number: int
    live: float
    frozen: float
    """Of the first model, had it been kept."""


@dataclass(frozen=True)
class Band:
    """Days `first` to `last`, and what happened in them."""

    first: int
    last: int
    text: str


def draw(days: Sequence[Day], bands: Sequence[Band], path: Path) -> None:
    """Write the curves of live and first model over the bands as SVG: text stays text, and the same
    days give the same file."""
    fonts = ["Arial", "Helvetica", "DejaVu Sans"]
    with rc_context(
        {"svg.fonttype": "none", "svg.hashsalt": "kreislauf", "font.sans-serif": fonts}
    ):
        figure = Figure(figsize=(9, 3.4), layout="constrained")
        axes = figure.subplots()
        numbers = [day.number for day in days]
        axes.plot(numbers, [day.live for day in days], "o-", color=LIVE, label="live model")
        frozen = [day.frozen for day in days]
        axes.plot(numbers, frozen, "o--", color=FROZEN, label="first model, had it been kept")
        _add_bands(axes, bands)
        axes.set(xlabel="day of the shop", ylabel="recall@20", xticks=numbers)
        axes.set_xlim(bands[0].first - 0.5, bands[-1].last + 0.5)
        axes.set_ylim(0, 1.45 * max(day.live for day in days))
        axes.legend(frameon=False, loc="lower left")
        axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(path, format="svg", metadata={"Date": None})


def _add_bands(axes: Axes, bands: Sequence[Band]) -> None:
    """Shade the bands in turn, with their texts at the top."""
    for number, band in enumerate(bands):
        first = band.first - 0.5
        last = band.last + 0.5
        axes.axvspan(first, last, color=BANDS[number % 2], zorder=0)
        axes.text(
            (first + last) / 2,
            0.97,
            band.text,
            transform=axes.get_xaxis_transform(),
            horizontalalignment="center",
            verticalalignment="top",
            fontsize=9,
        )
