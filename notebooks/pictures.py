"""Figures of notebooks in one style, shown below their cells and collected on one page."""

import base64
import html
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib
import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

GREEN = "#0b6e4f"
GREY = "#9aa3ad"
RED = "#c1121f"
SERIES = (
    "#7fb3a2",
    "#e3a23a",
    "#a4243b",
    "#4a6fa5",
    "#7d5ba6",
    "#5c6770",
    "#b5a642",
    "#d88c9a",
    "#2f3e46",
    "#c9b79c",
)
STYLE = """
body {
  font: 16px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem;
  color: #1b1f24
}
img { width: 100%; margin-top: 3rem }
p { max-width: 60rem }
caption { text-align: left; font-weight: 600 }
table { border-collapse: collapse; font-size: .85rem; margin: 1rem 0 }
td {
  padding: .2rem .7rem; border-bottom: 1px solid #d7dce1; vertical-align: top;
  overflow-wrap: anywhere
}
tr:first-of-type td { color: #5c6770 }
"""
# Names and rules are text: a dollar sign in them does not begin a formula.
matplotlib.rcParams.update({"text.parse_math": False, "date.converter": "concise", "font.size": 9})
matplotlib.rcParams.update(
    {"axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False}
)


class Shown(str):
    """HTML that a notebook shows below its cell."""

    _repr_html_ = str.__str__


@dataclass
class Page:
    """A folder for pictures, and the page with all of them."""

    folder: Path
    sections: dict[str, str] = field(default_factory=dict)
    """HTML of each picture, by its name."""

    def show(
        self,
        name: str,
        figure: Figure,
        conclusion: str,
        tables: dict[str, pl.DataFrame] | None = None,
    ) -> Shown:
        """Save a figure as PNG; put it, its conclusion, and some rows behind it on the page."""
        self.folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(self.folder / f"{name}.png", dpi=110)
        png = base64.b64encode((self.folder / f"{name}.png").read_bytes()).decode()
        section = f'<img src="data:image/png;base64,{png}" alt="{name}">\n'
        section += f"<p>{html.escape(conclusion)}</p>"
        for title, rows in (tables or {}).items():
            if rows.height:
                section += _table(title, rows)
        self.sections[name] = section
        return Shown(section)

    def write(self, title: str) -> Path:
        """Write the page and return where it is."""
        head = f'<meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>'
        path = self.folder / "index.html"
        body = "\n".join([f"<h1>{title}</h1>", *self.sections.values()])
        path.write_text(
            f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>{body}</body></html>\n',
            "utf-8",
        )
        return path


def _table(title: str, rows: pl.DataFrame) -> str:
    """Rows as HTML; times to the second."""
    rows = rows.with_columns(
        pl.selectors.datetime().dt.strftime("%Y-%m-%d %H:%M:%S"), pl.selectors.float().round(2)
    )
    lines = "".join(_line(cells) for cells in (rows.columns, *rows.rows()))
    return f"\n<table><caption>{html.escape(title)}</caption>{lines}</table>"


def _line(cells: Iterable[object]) -> str:
    """Cells as a line of a table."""
    return f"<tr>{''.join(f'<td>{html.escape(str(cell))}</td>' for cell in cells)}</tr>"


PLAIN = FuncFormatter(lambda value, _: f"{value:,.10g}")


def make_panels(title: str, mosaic: str, height: float) -> tuple[Figure, list[Axes]]:
    """A figure and its axes, in the order of their letters in the mosaic."""
    figure = Figure(figsize=(12, height), layout="constrained")
    figure.suptitle(title, fontsize=14, fontweight="bold")
    panels = [axes for _, axes in sorted(figure.subplot_mosaic(mosaic).items())]
    for axes in panels:
        axes.yaxis.set_major_formatter(PLAIN)
    return figure, panels


def use_log_scale(axes: Axes, names: str) -> None:
    """Make the axes "x", "y" or "xy" of a drawing logarithmic, with plain numbers."""
    for name in names:
        axes.set(**{f"{name}scale": "log"})
        axis = {"x": axes.xaxis, "y": axes.yaxis}[name]
        low, high = axis.get_view_interval()
        ticks: tuple[int, ...] = (1, 2, 5)
        if high > 1000 * low:
            ticks = (1,)
        axis.set_major_locator(LogLocator(subs=ticks))
        axis.set_major_formatter(PLAIN)
        axis.set_minor_formatter(NullFormatter())


def draw_stacked(
    axes: Axes, edges: np.ndarray, layers: dict[str, np.ndarray], empty: str = ""
) -> None:
    """Draw steps on top of each other, or the text `empty` if all are 0.

    A layer has a value between any two edges: (edges - 1,).
    """
    below = np.zeros(len(edges) - 1)
    for (name, values), colour in zip(layers.items(), SERIES, strict=False):
        if values.any():
            axes.stairs(below + values, edges, baseline=below, fill=True, label=name, color=colour)
            below = below + values
    if not below.any():
        return draw_empty(axes, empty)
    axes.set(xlim=(edges[0], edges[-1]), ylim=(0, 1.2 * below.max()))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10], integer=True))
    axes.legend(ncols=3, loc="upper right")


def draw_empty(axes: Axes, reason: str) -> None:
    """Write why there is no curve."""
    text = axes.text(0.5, 0.5, reason, color=GREY, fontsize=11, transform=axes.transAxes)
    text.set(ha="center", va="center")
    axes.set(xticks=[], yticks=[])


def percent(count: float, total: float) -> str:
    """A share as text."""
    if not total:
        return "0 %"
    return f"{100 * count / total:.3g} %"
