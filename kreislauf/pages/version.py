"""The page about a model version: what was decided and what follows, then the evidence."""

import polars as pl

from kreislauf import registry
from kreislauf.clock import when
from kreislauf.evaluation import gate
from kreislauf.evaluation.comparison import CAUSED_CLICKS
from kreislauf.monitoring import drift
from kreislauf.pages import markdown


def page(
    version: registry.Version,
    decision: gate.Decision,
    smallest: float,
    drifts: dict[str, float],
    decisions: pl.DataFrame,
) -> str:
    """The card as Markdown.

    `smallest` is the gain that the hold-out could show, `drifts` the population stability index of
    each column, and `decisions` the rows of all versions.
    """
    sections = [
        f"# {version.model} version {version.number}: {decision.outcome}",
        summary(version.number, decision),
        " ".join(decision.reasons),
        f"## Quality on the hold-out\n\n{_quality(decision)}",
        _intervals(decision),
        f"The {decision.groups} groups show a gain of {smallest:.4f} in most cases, a smaller one "
        "less often.",
        _slices(decision),
        _data(version.lineage),
        f"## Drift from training to hold-out\n\n{_drift(drifts)}",
        f"## Lineage\n\n{_origin(version)}",
        ancestors(version, decisions),
        _run(version),
        "## Back\n\nIf it is live and does harm, this makes the version before it live again, or, "
        "with `--param version=N`, an earlier one. It is for a shell into which the last line of "
        "`make status` was copied; *Custom run* of the deployment `rollback` does the same.\n\n"
        f"    prefect deployment run rollback/rollback --param model={version.model}",
    ]
    return "\n\n".join(filter(None, sections))


def summary(number: int, decision: gate.Decision) -> str:
    """One sentence for people who run the shop: what was decided, and what follows."""
    champion = decision.champion_version
    stays = "nothing is live yet"
    if champion is not None:
        stays = f"version {champion} stays live"
    if decision.outcome == "inconclusive":
        return f"It is not certain yet whether version {number} is good enough, so {stays}."
    if decision.outcome == "refuse":
        return f"Version {number} is not good enough to go live, so {stays}."
    if champion is None:
        return f"Version {number} has passed all tests and may go live, as the first."
    return f"Version {number} has passed all tests and may replace version {champion}."


def _intervals(decision: gate.Decision) -> str:
    intervals = {
        decision.metric: decision.reference,
        "minus champion": decision.gain,
        "minus trivial baseline": decision.over_baseline,
    }
    texts = [f"{name} {interval}" for name, interval in intervals.items() if interval]
    if not texts:
        return ""
    text = f"The challenger with its confidence intervals: {', '.join(texts)}."
    if decision.clicked and decision.gain:
        text += (
            f" {decision.clicked:.1%} of the right answers were taken from an answer that was "
            f"shown; against the champion each of them counts {1 - CAUSED_CLICKS:g}."
        )
    return text


def _quality(decision: gate.Decision) -> str:
    rows = []
    for name in ("challenger", "champion", "baseline"):
        score = getattr(decision, name)
        title = name
        if name == "champion" and score is not None:
            title = f"champion, version {decision.champion_version}"
        row = [title, _number(score, 4)]
        cost = decision.costs.get(name)
        if cost:
            row += [
                _number(cost.p95_ms, 2),
                _number(cost.megabytes, 1),
                _number(cost.coverage, 3),
            ]
        else:
            row += [None, None, None]
        rows.append(row)
    return markdown.table(["", decision.metric, "p95, ms", "MB", "coverage"], rows)


def _slices(decision: gate.Decision) -> str:
    if not decision.slices:
        return ""
    rows = [(each.by, each.value, each.groups, each.gain) for each in decision.slices]
    table = markdown.table(["slice", "", "groups", "challenger minus champion"], rows)
    return f"## Slices\n\n{table}"


def _data(lineage: registry.Lineage) -> str:
    text = (
        f"## Data\n\nLearnt from {when(lineage.start)} to {when(lineage.holdout)}, judged on what "
        f"came until {when(lineage.watermark)} (UTC). Table {lineage.table}, version "
        f"{lineage.table_version}, digest `{lineage.digest}`."
    )
    if lineage.ahead:
        text += (
            f" {lineage.ahead} rows were later than that, and too few groups agreed with them: "
            "they wait in the table."
        )
    return f"{text} {lineage.clicks}".rstrip()


def _drift(drifts: dict[str, float]) -> str:
    if not drifts:
        return "There is too little before the hold-out to compare it with."
    rows = []
    for column, value in drifts.items():
        note = "drifted" if value >= drift.THRESHOLD else ""
        rows.append((column, f"{value:.3f}", note))
    return markdown.table(["column", "PSI", ""], rows)


def _origin(version: registry.Version) -> str:
    """What the table of ancestors shows."""
    if version.lineage.parent is None:
        return "The version, whose training started from no other one's weights:"
    return "The version, and those whose weights it started from:"


def ancestors(version: registry.Version, decisions: pl.DataFrame) -> str:
    """The version, its parent, and so on to one without: what the gate said of each, as a table."""
    newest = {row["version"]: row for row in decisions.iter_rows(named=True)}
    rows = []
    number = version.number
    while number is not None and number in newest:
        row = newest[number]
        gain = "first"
        if row["gain_mean"] is not None:
            gain = f"{row['gain_mean']:+.4f}"
        score = _number(row["challenger_score"], 4)
        rows.append((number, row["outcome"], score, gain, when(row["holdout_start"])))
        number = row["parent"]
    return markdown.table(
        ["version", "decision", "score", "gain over the champion", "learnt until"], rows
    )


def _run(version: registry.Version) -> str:
    parity = "its parity is not known"
    if version.parity:
        parity = (
            f"it was compared with the module on {version.parity.inputs} inputs in batches of 1 to "
            f"{version.parity.largest_batch}"
        )
    return (
        f"MLflow run `{version.run_id}` has parameters, curves, code version and environment. The "
        f"ONNX file's SHA-256 is `{version.digests['model.onnx']}`; {parity}."
    )


def _number(value: float | None, digits: int) -> str | None:
    if value is None:
        return None
    return f"{value:.{digits}f}"
