"""The demo's result as one self-contained HTML page: curves, and the story period by period."""

import html
from pathlib import Path

from matplotlib.figure import Figure

from kreislauf import clock
from kreislauf.pages import markdown

STYLE = (
    markdown.STYLE
    + """\
.promote { background: #e7f6ec }
.refuse { background: #fdeceb }
.inconclusive { background: #fff6de }
"""
)
COLUMNS = (
    "period",
    "from",
    "live",
    "first model",
    "version",
    "what the monitor saw",
    "trigger",
    "what came of it",
)
CURVES = (
    ("live_recall", "live model", "#0b6e4f", "o"),
    ("frozen_recall", "first model, kept", "#9aa3ad", "o"),
    ("table_recall", "table, fitted weekly", "#c98a1b", "."),
)
"""Each curve's field of a period, label, colour and marker."""


def write_page(periods: list[dict], summary: dict, path: Path) -> Path:
    """Write the page to `path` and return it; `demo.replay` makes `periods` and `summary`."""
    head = "".join(f"<th>{column}</th>" for column in COLUMNS)
    rows = "\n".join(_row(period) for period in periods)
    title = "Kreislauf: the loop at work"
    path.write_text(
        f"""<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style></head>
<body><h1>The loop at work</h1>
<p>{_lead(summary)}</p>
{_curves(periods)}
<table><tr>{head}</tr>
{rows}
</table></body></html>
""",
        encoding="utf-8",
    )
    return path


def _lead(summary: dict) -> str:
    """The result in three sentences."""
    live = summary["live_recall"]
    frozen = summary["frozen_recall"]
    return (
        f"{summary['requests']:,} requests were answered by Triton in {summary['periods']} "
        f"periods. Over the last quarter the live model's recall@20 is {live:.3f}; the first "
        f"model, had it been kept, would have reached {frozen:.3f} ({live - frozen:+.3f}), a "
        "co-visitation table that is fitted anew before each period "
        f"{summary['table_recall']:.3f}. {summary['retrainings']} retrainings were started, "
        f"{summary['events']} by events and the others by the weekly schedule: "
        f"{summary['promoted']} promoted, {summary['refused']} refused, "
        f"{summary['inconclusive']} inconclusive."
    )


def _curves(periods: list[dict]) -> str:
    """The curves of recall as SVG."""
    figure = Figure(figsize=(9, 3.6))
    axes = figure.subplots()
    numbers = [period["number"] for period in periods]
    for name, label, colour, marker in CURVES:
        recalls = [period[name] for period in periods]
        axes.plot(numbers, recalls, marker=marker, color=colour, label=label)
    for period in periods:
        if period["story"].startswith("promote"):
            axes.axvline(period["number"] + 0.5, color="#0b6e4f", linewidth=0.8, linestyle=":")
    axes.set(xlabel="period (dotted: a new version goes live)", ylabel="recall@20", xticks=numbers)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return markdown.svg(figure)


def _row(period: dict) -> str:
    """A period as a row of the table, coloured by the gate's outcome."""
    numbers = [
        str(period["number"]),
        clock.date(period["start"]),
        f"{period['live_recall']:.4f}",
        f"{period['frozen_recall']:.4f}",
        str(period["version"]),
    ]
    texts = [html.escape(period["finding"]), period["trigger"], html.escape(period["story"])]
    cells = [f'<td class="n">{number}</td>' for number in numbers]
    cells += [f"<td>{text}</td>" for text in texts]
    return f'<tr class="{period["story"].split()[0]}">{"".join(cells)}</tr>'
