"""The lifecycle page of a model type: one HTML file that needs no server, light and dark.

It is drawn from the lake's tables and what lies beside the release log, and from nothing else.
"""

import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import jinja2

from kreislauf.clock import when
from kreislauf.monitoring import tables
from kreislauf.monitoring.feedback import VariantClicks
from kreislauf.pages import charts, life_experiments, life_tables
from kreislauf.pages.life import CURVES, DAYS, MAX_ROWS, Life, moments
from kreislauf.pages.links import Links

ANSWERS = {
    "stable": "its answers are as good as usual",
    "concept drift": "a newer one would answer better, because visitors want other things",
    "data fault": "how good its answers are is not certain, because the newest data looks wrong",
    "covariate shift": "other visitors came than usual, and its answers still suit them",
    "undecided": "its answers have become worse, and it is too early to say why",
    "not enough data": "too little new data has come to say how good its answers are",
}
"""What each verdict means for the shop, after the live version was named."""
NOT_WATCHED = "the monitor has not looked at it yet"
WIDE = 860
NARROW = 360
GAINS = 20
"""Decisions whose intervals are drawn."""


@cache
def template() -> jinja2.Template:
    """The page without its content; to compile it takes longer than to fill it."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["when"] = when
    return environment.get_template("lifecycle.html")


def draw(
    life: Life,
    links: Links,
    clicks: Sequence[VariantClicks] = (),
    batch_clicks: Mapping[str, float] = {},
) -> str:
    """The page as HTML; `clicks` are those of an A/B test that runs, and `batch_clicks` the clicks
    per answer of batches, by their names."""
    return template().render(
        life=life,
        summary=summary(life),
        links=links.of_model(life.model, life.is_served, bool(life.batches)),
        runs=bool(links.prefect),
        quality=quality(life),
        quality_text=quality_text(life),
        gains=gains(life),
        gains_text=gains_text(life),
        windows=life_tables.windows(life, links),
        releases=life_tables.releases(life, links),
        decisions=life_tables.decisions(life, links),
        effects=effects(life),
        effects_text=effects_text(life),
        looked_at=life_experiments.looked_at(life),
        experiments=life_experiments.experiments(life, links),
        clicks=life_experiments.clicks(life, clicks),
        batches=life_tables.batches(life, links, batch_clicks),
        alarms=life_tables.alarms(life, links),
        left_out=life_tables.left_out(life),
        opinions=life_tables.opinions(life),
        days=DAYS,
        rows=MAX_ROWS,
        drawn=when(int(time.time() * 1000)),
    )


def summary(life: Life) -> str:
    """What is live since when, how well it answers, and what waits for a person: one sentence for
    the shop's manager."""
    waits = "nothing waits for a person"
    if life.waiting:
        waits = "something waits for a person, see below"
    release = life.current
    if release is None:
        return f"No version is live yet, and {waits}."
    answers = NOT_WATCHED
    if life.status:
        answers = ANSWERS.get(life.status.verdict, life.status.verdict)
    return f"{live_since(life)}; {answers}{figures(life)}; {waits}."


def live_since(life: Life) -> str:
    """The live version, and since when; only of releases that have the time."""
    first = life.champions[-1]
    since = ""
    if first.at is not None:
        since = f" since {when(first.at)} UTC"
    return f"Version {first.champion} is live{since}"


def figures(life: Life) -> str:
    """The quality in the newest window of the live version, or else on the hold-out, in
    brackets."""
    assert life.current
    champion = life.current.champion
    measured = life.windows.filter(version=champion).drop_nulls("live")
    if measured.height:
        row = measured.row(-1, named=True)
        text = f"{life.metric} {row['live']:.3f}"
        if row[tables.FIRST_VERSION] is not None and champion != life.first_champion:
            text += f", where the first version would reach {row[tables.FIRST_VERSION]:.3f}"
        return f" ({text})"
    if life.decisions.height:
        judged = life.decisions.filter(version=champion).drop_nulls("challenger_score")
        if judged.height:
            return f" ({life.metric} {judged['challenger_score'][-1]:.3f} when it was judged)"
    return ""


def marks(life: Life) -> list[tuple[int, str]]:
    """Where each new champion stands on the axis of time (ms), and its label."""
    places = moments(life.champions, life.newest)
    labels = [f"v{release.champion}" for release in life.champions]
    labelled = zip(places, labels, strict=True)
    return [mark for mark in labelled if mark[0] > life.since]


def quality(life: Life) -> list[charts.CurveChart]:
    """The curves, for wide and for narrow screens; none without a window."""
    if life.windows.is_empty():
        return []
    widths = {"wide": (WIDE, 300), "narrow": (NARROW, 260)}
    return [
        charts.curves(css, width, height, life.windows, tuple(CURVES), marks(life))
        for css, (width, height) in widths.items()
    ]


def quality_text(life: Life) -> str:
    """What the curves show, for who cannot see them."""
    parts = []
    for name, title in (
        ("live", "the live version"),
        (tables.FIRST_VERSION, "the first version"),
        (tables.BASELINE, "the trivial baseline"),
    ):
        values = life.windows[name].drop_nulls()
        if len(values):
            parts.append(f"{title} from {values[0]:.3f} to {values[-1]:.3f}")
    versions = ", ".join(label for _, label in marks(life)) or "no version"
    return (
        f"{life.metric} in {life.windows.height} windows: {'; '.join(parts)}. "
        f"{versions} went live in this time. The table below has the numbers."
    )


def gains(life: Life) -> list[charts.IntervalChart]:
    """The intervals of the gains; none without a gain."""
    return both_widths(life_tables.gains(life, GAINS))


def both_widths(rows: Sequence[charts.LabelledInterval]) -> list[charts.IntervalChart]:
    """Intervals for wide and for narrow screens; none without rows."""
    if not rows:
        return []
    return [
        charts.intervals("wide", WIDE, rows, left=170),
        charts.intervals("narrow", NARROW, rows, left=130),
    ]


def effects(life: Life) -> list[charts.IntervalChart]:
    """The intervals of the newest A/B test."""
    return both_widths(life_experiments.effects(life))


def effects_text(life: Life) -> str:
    """What these intervals show, for who cannot see them."""
    rows = life_experiments.effects(life)
    if not rows:
        return ""
    newest = rows[0]
    interval = newest.interval
    text = (
        f"{life_experiments.looked_at(life)}: the difference at {len(rows)} looks. At the newest "
        f"one, {newest.label} UTC, it is {interval.mean:+.1%}, from {interval.low:+.1%} to "
        f"{interval.high:+.1%}."
    )
    for name, bound in newest.bounds:
        text += f" The bound of {name} is {bound:+.1%}."
    return text


def gains_text(life: Life) -> str:
    """What the intervals show, for who cannot see them."""
    compared = life_tables.gains(life, GAINS)
    outcomes = [each.css for each in compared]
    counts = ", ".join(f"{outcomes.count(name)} {name}" for name in dict.fromkeys(outcomes))
    return (
        f"Gain in {life.metric} over the live version in the newest {len(compared)} decisions: "
        f"{counts}. The table below has the intervals."
    )
