"""What a notebook draws with: figures in one style, shown below their cells and collected on one
page."""

import base64
import html
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
body { font: 16px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; color: #1b1f24 }
img { width: 100%; margin-top: 3rem } p { max-width: 60rem } caption { text-align: left; font-weight: 600 }
table { border-collapse: collapse; font-size: .85rem; margin: 1rem 0 }
td { padding: .2rem .7rem; border-bottom: 1px solid #d7dce1; vertical-align: top; overflow-wrap: anywhere }
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
    parts: dict[str, str] = field(default_factory=dict)

    def show(
        self,
        name: str,
        figure: Figure,
        conclusion: str,
        tables: dict[str, pl.DataFrame] | None = None,
    ) -> Shown:
        """Save a figure as PNG; put it, what it says, and some rows behind it on the page."""
        self.folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(self.folder / f"{name}.png", dpi=110)
        png = base64.b64encode((self.folder / f"{name}.png").read_bytes()).decode()
        behind = "".join(
            _table(title, rows) for title, rows in (tables or {}).items() if rows.height
        )
        said = f'<img src="data:image/png;base64,{png}" alt="{name}">\n<p>{html.escape(conclusion)}</p>{behind}'
        self.parts[name] = said
        return Shown(said)

    def write(self, title: str) -> Path:
        """Write the page and return where it is."""
        head = f'<meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>'
        path = self.folder / "index.html"
        body = "\n".join([f"<h1>{title}</h1>", *self.parts.values()])
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
    lines = (
        "".join(f"<td>{html.escape(str(cell))}</td>" for cell in line)
        for line in (rows.columns, *rows.rows())
    )
    return f"\n<table><caption>{html.escape(title)}</caption>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


PLAIN = FuncFormatter(lambda value, _: f"{value:,.10g}")


def panels(title: str, mosaic: str, height: float) -> tuple[Figure, list[Axes]]:
    """A figure and its axes, in the order of their letters in the mosaic."""
    figure = Figure(figsize=(12, height), layout="constrained")
    figure.suptitle(title, fontsize=14, fontweight="bold")
    found = [axes for _, axes in sorted(figure.subplot_mosaic(mosaic).items())]
    for axes in found:
        axes.yaxis.set_major_formatter(PLAIN)
    return figure, found


def logarithmic(axes: Axes, which: str) -> None:
    """Make the axes "x", "y" or "xy" of what has been drawn logarithmic, with plain numbers."""
    for name in which:
        axes.set(**{f"{name}scale": "log"})
        axis = axes.xaxis if name == "x" else axes.yaxis
        low, high = axis.get_view_interval()
        axis.set_major_locator(LogLocator(subs=(1,) if high > 1000 * low else (1, 2, 5)))
        axis.set_major_formatter(PLAIN)
        axis.set_minor_formatter(NullFormatter())


def stacked(axes: Axes, edges: np.ndarray, parts: dict[str, np.ndarray], empty: str = "") -> None:
    """Steps on top of each other, one value between any two edges; `empty`, in words, if all are
    0."""
    below = np.zeros(len(edges) - 1)
    for (name, values), colour in zip(parts.items(), SERIES, strict=False):
        if values.any():
            axes.stairs(below + values, edges, baseline=below, fill=True, label=name, color=colour)
            below = below + values
    if not below.any():
        return nothing(axes, empty)
    axes.set(xlim=(edges[0], edges[-1]), ylim=(0, 1.2 * below.max()))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10], integer=True))
    axes.legend(ncols=3, loc="upper right")


def nothing(axes: Axes, why: str) -> None:
    """Say why there is no curve."""
    axes.text(
        0.5, 0.5, why, transform=axes.transAxes, ha="center", va="center", color=GREY, fontsize=11
    )
    axes.set(xticks=[], yticks=[])


def percent(part: float, whole: float) -> str:
    """A share in words."""
    return f"{100 * part / whole:.3g} %" if whole else "0 %"
