"""The page about a model version: how it was judged, what it learnt from, where it comes from"""

import polars as pl

from kreislauf import registry
from kreislauf.clock import when
from kreislauf.evaluation import gate
from kreislauf.monitoring import drift
from kreislauf.pages import markdown


def page(
    version: registry.Version,
    decision: gate.Decision,
    smallest: float,
    moved: dict[str, float],
    judged: pl.DataFrame,
) -> str:
    """The card as Markdown: `smallest` is the gain that the hold-out could show, `moved` the drift
    of each column, and `judged` the decisions about all versions."""
    name = f"{version.model} version {version.number}"
    lineage = version.lineage
    parity = version.parity
    slices = markdown.table(
        ["slice", "", "groups", "challenger minus champion"],
        [(part.by, part.value, part.groups, part.gain) for part in decision.slices],
    )
    proven = (
        f"it was compared with the module on {parity.inputs} inputs in batches of 1 to {parity.largest_batch}"
        if parity
        else "its parity is not known"
    )
    sections = [
        f"# {name}: {decision.outcome}",
        " ".join(decision.reasons),
        f"## Quality on the hold-out\n\n{_quality(decision)}",
        _intervals(decision),
        f"The {decision.groups} groups show a gain of {smallest:.4f} in most cases, a smaller one less often.",
        f"## Slices\n\n{slices}" if slices else "",
        f"## Data\n\nLearnt from {when(lineage.start)} to {when(lineage.holdout)}, judged on what came until "
        f"{when(lineage.watermark)} (UTC). Table {lineage.table}, version {lineage.table_version}, digest "
        f"`{lineage.digest}`.",
        f"## Drift from training to hold-out\n\n{_drift(moved)}",
        "## Lineage\n\nThe version, and those whose weights it started from:",
        ancestors(version, judged),
        f"MLflow run `{version.run_id}` has parameters, curves, code version and environment. The ONNX file's SHA-256 "
        f"is `{version.digests['model.onnx']}`; {proven}.",
        "## Back\n\nIf it is live and does harm, this makes the version before it live again, or, with "
        "`--param version=N`, an earlier one:\n\n"
        f"    prefect deployment run rollback/rollback --param model={version.model}",
    ]
    return "\n\n".join(filter(None, sections))


def _intervals(decision: gate.Decision) -> str:
    told = {
        decision.metric: decision.reference,
        "minus champion": decision.gain,
        "minus trivial baseline": decision.over_baseline,
    }
    found = [f"{what} {interval}" for what, interval in told.items() if interval]
    return f"The challenger with its intervals: {', '.join(found)}." if found else ""


def _quality(decision: gate.Decision) -> str:
    rows = []
    for who in ("challenger", "champion", "baseline"):
        cost = decision.costs.get(who)
        score = getattr(decision, who)
        told = (cost.p95_ms, cost.megabytes, cost.coverage) if cost else (None, None, None)
        name = (
            f"champion, version {decision.champion_version}"
            if who == "champion" and score is not None
            else who
        )
        rows.append((name, *map(_number, (score, *told), (4, 2, 1, 3))))
    return markdown.table(["", decision.metric, "p95, ms", "MB", "coverage"], rows)


def ancestors(version: registry.Version, judged: pl.DataFrame) -> str:
    """The version, its parent, and so on to one without: what the gate said of each, as a table."""
    last = {row["version"]: row for row in judged.iter_rows(named=True)}
    rows = []
    number = version.number
    while number is not None and number in last:
        row = last[number]
        gain = f"{row['gain_mean']:+.4f}" if row["gain_mean"] is not None else "first"
        rows.append(
            (
                number,
                row["outcome"],
                _number(row["challenger_score"], 4),
                gain,
                when(row["holdout_start"]),
            )
        )
        number = row["parent"]
    return markdown.table(
        ["version", "decision", "score", "gain over the champion", "learnt until"], rows
    )


def _drift(moved: dict[str, float]) -> str:
    rows = [
        (name, f"{value:.3f}", "drifted" if value >= drift.THRESHOLD else "")
        for name, value in moved.items()
    ]
    return (
        markdown.table(["column", "PSI", ""], rows)
        or "There is too little before the hold-out to compare it with."
    )


def _number(value: float | None, digits: int) -> str | None:
    return None if value is None else f"{value:.{digits}f}"
