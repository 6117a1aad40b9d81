"""The page about a monitored window: what happened and what follows, then the evidence."""

import math
from collections.abc import Sequence

import polars as pl

from kreislauf.clock import when
from kreislauf.monitoring import plots, suspicion
from kreislauf.monitoring.feedback import VariantClicks
from kreislauf.monitoring.finding import Finding
from kreislauf.monitoring.measurement import Measurement
from kreislauf.monitoring.policy import Action
from kreislauf.pages import markdown
from kreislauf.release import releases

SUMMARIES = {
    "stable": "Visitors and answers are as usual",
    "concept drift": "Visitors want other things than the model has learnt",
    "data fault": "The shop's data looks wrong",
    "covariate shift": "Other visitors came than usual, and the model still suits them",
    "undecided": "The answers have become worse, and it is too early to say why",
    "not enough data": "There is not enough new data yet to say anything",
}
"""What each verdict means for the shop."""


def page(finding: Finding, measurement: Measurement, action: Action, windows: pl.DataFrame) -> str:
    """The finding as Markdown; `windows` are the recorded windows of the model type."""
    head = [
        f"# {finding.model} version {finding.version}: {finding.verdict}",
        summary(finding, action),
        f"## Evidence\n\n{finding.reason} {action.sentence}",
    ]
    if finding.remarks:
        remarks = "\n".join(f"- {remark}" for remark in finding.remarks)
        head.append(f"## Somebody should look at this\n\n{remarks}")
    tails = _section("The newest hours", _tails(measurement))
    if not finding.signals:  # A fault in the newest hours comes before the window is measured.
        return "\n\n".join([*head, tails])
    metric = finding.metric
    evidence = (
        f"{metric}: {finding.realised} now, {finding.reference} when it was judged, "
        f"{finding.groups} groups. A trivial baseline gains {finding.gain} by a refit."
    )
    report = f"Its report: MLflow, run of version {finding.version}, folder `monitor`."
    sections = [
        *head,
        evidence,
        tails,
        f"![signals]({plots.signals(finding.signals)})",
        f"## Signals\n\n{_signals(finding)}",
        f"![history]({plots.history(windows, metric)})",
        _section(f"{metric} by slice", _slices(metric, measurement)),
        _section("Reactions to the answers", clicks(measurement.clicks)),
        f"## Evidently\n\n{_drift(measurement)}\n\n{report}",
    ]
    return "\n\n".join(sections)


def summary(finding: Finding, action: Action) -> str:
    """What happened between which times, and what follows, in a sentence for the shop's manager."""
    stretch = f"{when(finding.start)} to {when(finding.end)}, UTC"
    return f"{SUMMARIES[finding.verdict]} ({stretch}), {consequence(finding, action)}."


def consequence(finding: Finding, action: Action) -> str:
    """What follows, as the end of a sentence."""
    if action.asks_for_retraining:
        return "so the model is trained again"
    if finding.verdict == "concept drift" and not action.wait:
        return "but it is too early to train the model again"
    if action.exclude:
        return "so the model will not learn from these days' faulty part"
    if finding.verdict == "undecided":
        return "so the model is not trained before that is clear"
    if action.event == "question":
        return "or its assortment is new, which somebody has to say"
    if action.wait:
        return "and somebody was asked whether its assortment is new"
    if finding.verdict == "data fault" and not action.alarm:
        return "but a person trusts it, so nothing is left out"
    if finding.verdict == "data fault":
        return "and somebody should look at it"
    return "so nothing has to be done"


def _section(title: str, table: str) -> str:
    if not table:
        return ""
    return f"## {title}\n\n{table}"


def _tails(measurement: Measurement) -> str:
    head = ["newest", "groups", "quality", "reference", "standard error", "label correlation"]
    head += ["repeating rows", "rows of long groups"]
    rows = []
    for tail in measurement.tails:
        correlation = ""
        if math.isfinite(tail.label_correlation):
            correlation = f"{tail.label_correlation:.2f} (expected {tail.expected_correlation:.2f})"
        row = (
            suspicion.hours(tail),
            tail.groups,
            f"{tail.live:.4f}",
            f"{tail.reference:.4f}",
            f"{tail.error:.4f}",
            correlation,
            f"{tail.repeats:.1%} ({tail.repeats_reference:.1%})",
            f"{tail.long_rows:.1%} ({tail.long_rows_reference:.1%})",
        )
        rows.append(row)
    return markdown.table(head, rows)


def _signals(finding: Finding) -> str:
    head = ["signal", "now", "mean", "tolerance", "windows", ""]
    rows = []
    for signal in finding.signals:
        mark = ""
        if signal.alarm:
            mark = "alarm"
        numbers = (f"{signal.value:.4g}", f"{signal.mean:.4g}", f"{signal.tolerance:.2g}")
        rows.append((signal.name, *numbers, signal.windows, mark))
    return markdown.table(head, rows)


def _slices(metric: str, measurement: Measurement) -> str:
    head = ["slice", "", "groups", f"{metric} now", "when it was judged", "trivial baseline now"]
    rows = []
    for quality in measurement.slices:
        live = f"{quality.live:.4f} [{quality.low:.4f}, {quality.high:.4f}]"
        reference = ""
        if quality.reference is not None:
            reference = f"{quality.reference:.4f}"
        baseline = f"{quality.baseline:.4f}"
        rows.append((quality.slice, quality.value, quality.groups, live, reference, baseline))
    return markdown.table(head, rows)


def clicks(rates: Sequence[VariantClicks]) -> str:
    """Clicks per answer of each version and variant, as a table."""
    head = ["answered by", "variant", "answers", "clicks per answer"]
    rows = [(releases.name(version), *numbers) for version, *numbers in rates]
    return markdown.table(head, rows)


def _drift(measurement: Measurement) -> str:
    rows = [(name, f"{psi:.3f}") for name, psi in measurement.drift.items()]
    return markdown.table(["column", "PSI"], rows)
