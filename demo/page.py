"""The demo's result as one self-contained HTML page: curves, and the story period by period."""

import html
from datetime import UTC, datetime
from pathlib import Path

from matplotlib.figure import Figure

from kreislauf.pages import markdown

STYLE = (
    markdown.STYLE
    + ".promote { background: #e7f6ec } .refuse { background: #fdeceb } .inconclusive { background: #fff6de }\n"
)


def write_page(periods: list[dict], summary: dict, path: Path) -> Path:
    """Write the page to `path` and return it; `periods` and `summary` as `demo.replay` makes
    them."""
    rows = "\n".join(_row(period) for period in periods)
    path.write_text(
        f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Kreislauf: the loop at work</title><style>{STYLE}</style></head>
<body><h1>The loop at work</h1>
<p>{_lead(summary)}</p>
{_curves(periods)}
<table><tr><th>period</th><th>from</th><th>live</th><th>first model</th><th>version</th><th>what the monitor saw</th>
<th>trigger</th><th>what came of it</th></tr>
{rows}
</table></body></html>
""",
        encoding="utf-8",
    )
    return path


def _lead(summary: dict) -> str:
    gain = summary["live_recall"] - summary["frozen_recall"]
    return (
        f"{summary['requests']:,} requests were answered by Triton in {summary['periods']} periods. Over the last "
        f"quarter the live model's recall@20 is {summary['live_recall']:.3f}; the first model, had it been kept, would "
        f"have reached {summary['frozen_recall']:.3f} ({gain:+.3f}), a co-visitation table that is fitted anew before "
        f"each period {summary['table_recall']:.3f}. {summary['retrainings']} retrainings were started, "
        f"{summary['events']} by events and the others by the weekly schedule: "
        f"{summary['promoted']} promoted, {summary['refused']} refused, "
        f"{summary['inconclusive']} inconclusive."
    )


def _curves(periods: list[dict]) -> str:
    figure = Figure(figsize=(9, 3.6))
    axes = figure.subplots()
    numbers = [p["number"] for p in periods]
    axes.plot(
        numbers,
        [p["live_recall"] for p in periods],
        marker="o",
        color="#0b6e4f",
        label="live model",
    )
    axes.plot(
        numbers,
        [p["frozen_recall"] for p in periods],
        marker="o",
        color="#9aa3ad",
        label="first model, kept",
    )
    axes.plot(
        numbers,
        [p["table_recall"] for p in periods],
        marker=".",
        color="#c98a1b",
        label="table, fitted weekly",
    )
    for period in periods:
        if period["story"].startswith("promote"):
            axes.axvline(period["number"] + 0.5, color="#0b6e4f", linewidth=0.8, linestyle=":")
    axes.set(xlabel="period (dotted: a new version goes live)", ylabel="recall@20", xticks=numbers)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return markdown.svg(figure)


def _row(period: dict) -> str:
    day = datetime.fromtimestamp(period["start"] / 1000, UTC).date()
    cells = [
        f'<td class="n">{period["number"]}</td><td class="n">{day}</td>',
        f'<td class="n">{period["live_recall"]:.4f}</td><td class="n">{period["frozen_recall"]:.4f}</td>',
        f'<td class="n">{period["version"]}</td><td>{html.escape(period["finding"])}</td>',
        f"<td>{period['trigger']}</td><td>{html.escape(period['story'])}</td>",
    ]
    return f'<tr class="{period["story"].split()[0]}">{"".join(cells)}</tr>'
