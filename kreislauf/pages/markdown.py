"""A page about a model version that needs no other file: Markdown, which Prefect shows, and the
same as HTML."""

import html
import io
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
color: #1b1f24 }
svg { width: 100%; height: auto }
table { border-collapse: collapse; font-size: .85rem }
td, th { padding: .3rem .6rem; text-align: left; border-bottom: 1px solid #d7dce1;
vertical-align: top }
td.n { text-align: right; white-space: nowrap }
"""
SECTION = re.compile(r'<section id="([^"]+)">.*?</section>', re.DOTALL)
"""A section that was added to a page."""

Points = Sequence[tuple[str, int, float]]
"""Name of a curve, step, value."""


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Rows as Markdown; None is an empty cell. The empty string if there are none."""
    cells = [[_cell(value) for value in row] for row in rows]
    if not cells:
        return ""
    lines = [list(head), ["---"] * len(head), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: object) -> str:
    if value is None:
        return ""
    return str(value).replace("|", "\\|")


def page(title: str, markdown: str, curves: Points) -> str:
    """`markdown` as one HTML file, with the curves below."""
    body = rendered(markdown)
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{STYLE}</style>'
    picture = ""
    if curves:
        picture = f"<h2>Curves</h2>{drawn(curves)}"
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}</head>\n'
        f"<body>{body}{picture}</body></html>\n"
    )


def with_section(page: str, name: str, markdown: str) -> str:
    """A page that was made by `page`, with `markdown` as its last section, called `name`; what was
    in a section of this name is replaced."""
    section = f'<section id="{name}">{rendered(markdown)}</section>'
    return _extended(page.replace(sections(page).get(name, ""), ""), section)


def with_sections_of(page: str, before: str) -> str:
    """A page that was made by `page`, with all sections that were added to the one `before`."""
    return _extended(page, "".join(sections(before).values()))


def sections(page: str) -> dict[str, str]:
    """The sections that were added to a page, by name, as HTML."""
    return {match[1]: match[0] for match in SECTION.finditer(page)}


def _extended(page: str, addition: str) -> str:
    """The page with more at its end, even if its file was cut off before that."""
    end = page.rfind("</body>")
    if end < 0:
        return page + addition
    return page[:end] + addition + page[end:]


def rendered(markdown: str) -> str:
    """Markdown as HTML."""
    from markdown_it import MarkdownIt

    # This preset lets no HTML through: some of the text comes from people.
    return MarkdownIt("js-default").render(markdown)


def drawn(curves: Points) -> str:
    """Each curve in a panel of its own, as SVG."""
    from matplotlib.figure import Figure

    by_name = defaultdict(list)
    for name, step, value in curves:
        by_name[name].append((step, value))
    figure = Figure(figsize=(9, 2.6 * len(by_name)), layout="constrained")
    panels = figure.subplots(len(by_name), squeeze=False)[:, 0]
    for axes, (name, points) in zip(panels, sorted(by_name.items()), strict=True):
        steps, values = zip(*sorted(points), strict=True)
        marker = "." if len(points) < 20 else None
        axes.plot(steps, values, marker=marker, color="#0b6e4f")
        axes.set(ylabel=name, xlabel="step")
        axes.spines[["top", "right"]].set_visible(False)
    return svg(figure)


def svg(figure) -> str:
    """A matplotlib figure as an element for HTML."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight")
    text = buffer.getvalue()
    return text[text.index("<svg") :]
