"""The page about a look at an A/B test."""

from statistics import NormalDist

from kreislauf.clock import when
from kreislauf.experiment import record as records
from kreislauf.experiment import running
from kreislauf.experiment.record import Record
from kreislauf.experiment.running import Running
from kreislauf.experiment.verdict import CONFIDENCE, Gap
from kreislauf.pages import markdown
from kreislauf.release import releases

OUTCOMES = {
    "running": "It goes on.",
    "benefit": "It has won.",
    "harm": "The test ends.",
    "mismatch": "The test ends.",
    "undecided": "The test ends.",
}
"""What each outcome of an A/B test means, for people."""
HOLD_BACK_OUTCOMES = {
    "running": "It goes on.",
    "benefit": "All users get the release.",
    "harm": "The release is rolled back, if that is possible; the release log says what was done.",
    "mismatch": "The hold-back ends.",
    "undecided": "All users get the release.",
}
"""What each outcome of a hold-back means."""


def page(test: Running, newest: Record) -> str:
    """All looks of the test until the newest one, as Markdown."""
    terms = running.read_terms(test.model, test.number)
    outcomes = OUTCOMES
    if test.is_hold_back:
        outcomes = HOLD_BACK_OUTCOMES
    parts = [
        f"# {test.model}: version {test.judged_version} against "
        f"{releases.name(test.reference_version)}",
        f"**{outcomes[newest.verdict.outcome]}** {newest.verdict.reason}",
        test.model_copy(update={"terms": terms}).sentence(),
        _users(test, newest),
        f"## Rates\n\n{_gaps(test, newest, terms.kpi)}",
        _slices(test, newest, terms.kpi),
        _looks(records.read(test.model, test.number)),
    ]
    return "\n\n".join(parts)


def card(test: Running, newest: Record) -> str:
    """What came of the test, as a section of the card of the version that was judged."""
    kind = "A/B test"
    if test.is_hold_back:
        kind = "Hold-back"
    parts = [
        f"## {kind} against {releases.name(test.reference_version)}",
        f"{newest.verdict.reason} {newest.look.assigned.all:,} users took part until "
        f"{when(newest.look.at)} UTC; it began with release {test.number}.",
        _gaps(test, newest, test.terms.kpi),
    ]
    return "\n\n".join(parts)


def _users(test: Running, newest: Record) -> str:
    """Who takes part, and who does not."""
    counts = newest.counts
    rows = []
    arms = {
        test.reference_arm: (test.reference_version, 1 - test.share),
        test.judged_arm: (test.judged_version, test.share),
    }
    for arm, (version, planned) in arms.items():
        share = counts.assigned[arm] / max(1, sum(counts.assigned.values()))
        numbers = [counts.assigned[arm], f"{share:.2%}", f"{planned:.2%}", counts.answered[arm]]
        rows.append([releases.name(version), arm, *numbers])
    head = ["answers", "arm", "users", "share", "planned", "answered by its version"]
    return (
        f"## Users\n\n{markdown.table(head, rows)}\n\n"
        f"{counts.answers:,} answers until {when(newest.look.at)} UTC count. Left out are "
        f"{counts.anonymous_answers:,} answers to nobody in particular, {counts.users_in_both:,} "
        f"users who were in both arms, and {counts.busy_users:,} who are too busy to be people."
    )


def _gaps(test: Running, newest: Record, kpi: str) -> str:
    """The rates and their differences."""
    gaps = {f"{kpi}s per answer (KPI)": newest.look.kpi, **newest.look.guardrails}
    rows = [[name, *_numbers(gap)] for name, gap in gaps.items()]
    head = ["rate", releases.name(test.reference_version), "difference", "standard error"]
    head.append("variance saved by the past")
    return markdown.table(head, rows)


def _slices(test: Running, newest: Record, kpi: str) -> str:
    """The KPI of groups of users, with intervals that hold together."""
    slices = newest.look.slices
    quantile = NormalDist().inv_cdf(1 - (1 - CONFIDENCE) / (2 * max(1, len(slices))))
    rows = []
    for name, gap in slices.items():
        interval = ""
        if gap.is_known:
            width = quantile * gap.variance**0.5
            low = (gap.difference - width) / gap.champion_rate
            high = (gap.difference + width) / gap.champion_rate
            interval = f"{low:+.1%} to {high:+.1%}"
        rows.append([name, *_numbers(gap)[:2], interval])
    reference = releases.name(test.reference_version)
    head = [f"{kpi}s per answer", reference, "difference", "interval"]
    return (
        f"## Slices\n\nThey are for ideas, and decide nothing. The intervals hold together with "
        f"{CONFIDENCE:.0%} confidence at one look, not over all looks.\n\n"
        f"{markdown.table(head, rows)}"
    )


def _numbers(gap: Gap) -> list[str]:
    if not gap.is_known:
        return ["none yet", "", "", ""]
    return [
        f"{gap.champion_rate:.4f}",
        f"{gap.difference / gap.champion_rate:+.1%}",
        f"{gap.variance**0.5 / gap.champion_rate:.1%}",
        f"{1 - gap.variance / gap.unadjusted_variance:.0%}",
    ]


def _looks(looks: list[Record]) -> str:
    """The looks over time; of many, those that were planned and the newest ones."""
    rows = []
    for each in reversed(records.selection(looks)):
        interval = ""
        if each.verdict.low is not None and each.verdict.high is not None:
            rate = each.look.kpi.champion_rate
            interval = f"{each.verdict.low / rate:+.1%} to {each.verdict.high / rate:+.1%}"
        row = [when(each.look.at), each.look.assigned.all, _numbers(each.look.kpi)[1], interval]
        row += [_bound(each, each.verdict.harm_bound), _bound(each, each.verdict.benefit_bound)]
        rows.append([*row, str(each.look.number or "")])
    head = ["until (UTC)", "users", "difference", f"{CONFIDENCE:.0%} interval"]
    head += ["harm below", "benefit from", "planned look"]
    return f"## Looks, the newest first\n\n{markdown.table(head, rows)}"


def _bound(newest: Record, difference: float | None) -> str:
    """A bound of a look as a share of the rate, or nothing."""
    if difference is None:
        return ""
    return f"{difference / newest.look.kpi.champion_rate:+.1%}"
