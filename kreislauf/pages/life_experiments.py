"""The tables of the lifecycle page that are about A/B tests."""

import itertools
from collections.abc import Sequence

from kreislauf.clock import when
from kreislauf.evaluation.intervals import Interval
from kreislauf.experiment import record
from kreislauf.monitoring.feedback import VariantClicks
from kreislauf.pages.charts import LabelledInterval
from kreislauf.pages.life import Life
from kreislauf.pages.life_tables import Cell, Table, share, time, version
from kreislauf.pages.links import Links
from kreislauf.release.releases import Release


def experiments(life: Life, links: Links) -> Table:
    """A/B tests and hold-backs: consecutive releases with the same two versions are one."""
    rows = []
    by_versions = itertools.groupby(
        life.log, lambda entry: (entry.champion, entry.challenger, entry.is_hold_back)
    )
    groups = [list(entries) for _, entries in by_versions]
    ends = [time(later[0].at) for later in groups[1:]]
    for entries, end in zip(groups, [*ends, "it runs"], strict=False):
        first = entries[0]
        if first.challenger is None:
            continue
        shares = dict.fromkeys(share(entry) for entry in entries)
        cells = [
            Cell(time(first.at)),
            Cell(end),
            version(life.model, first.champion, links),
            version(life.model, first.challenger, links),
            Cell(" then ".join(shares)),
            Cell(first.who),
            Cell(verdict(life, entries), css="text"),
        ]
        rows.append(cells)
    head = ["start", "end", "champion", "challenger", "users with the challenger", "by"]
    head.append("the newest look says")
    return Table("A/B tests, the newest first", head, rows[::-1])


def verdict(life: Life, entries: Sequence[Release]) -> str:
    """What the newest look at the test of these releases says; empty if nobody looked."""
    numbers = [entry.number for entry in entries if entry.number in life.looks]
    if not numbers:
        return ""
    return life.looks[numbers[-1]].verdict.reason


def looked_at(life: Life) -> str:
    """The newest A/B test or hold-back of which there are looks, as the beginning of a sentence;
    empty if there are none."""
    if not life.looks_at_newest:
        return ""
    number = life.looks_at_newest[-1].release
    return next((entry.trial for entry in life.log if entry.number == number), "")


def effects(life: Life) -> list[LabelledInterval]:
    """The difference at each look at `looked_at`, as a share of the rate of the version that is
    compared with, its interval, and the bounds of harm and benefit, the newest first; the label is
    the time."""
    rows: list[LabelledInterval] = []
    for each in reversed(record.selection(life.looks_at_newest)):
        newest = each.verdict
        gap = each.look.kpi
        if newest.low is None or newest.high is None:
            continue
        # While a benefit waits for a person, the interval is that of the look that has proven it.
        difference = min(max(gap.difference, newest.low), newest.high)
        interval = Interval(
            mean=difference / gap.champion_rate,
            low=newest.low / gap.champion_rate,
            high=newest.high / gap.champion_rate,
        )
        bounds = {"harm": newest.harm_bound, "benefit": newest.benefit_bound}
        relative = [
            (name, value / gap.champion_rate) for name, value in bounds.items() if value is not None
        ]
        rows.append(LabelledInterval(when(each.look.at), newest.outcome, interval, tuple(relative)))
    return rows


def clicks(life: Life, rates: Sequence[VariantClicks]) -> Table:
    """Clicks per answer in the A/B test that runs."""
    rows = []
    for number_of_version, variant, answers, rate in rates:
        numbers = (f"{answers:,}", f"{rate.mean:.4f} [{rate.low:.4f}, {rate.high:.4f}]")
        cells = [Cell(variant), version(life.model, number_of_version, Links())]
        rows.append(cells + [Cell(text, css="n") for text in numbers])
    caption = f"Clicks per answer since {when(life.clicks_since)}, 95 % interval over users"
    return Table(caption, ["variant", "version", "answers", "clicks per answer"], rows)
