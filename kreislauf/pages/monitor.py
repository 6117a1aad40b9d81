"""The page about a monitored window: what happened, what follows, and the evidence"""

import polars as pl

from kreislauf.monitoring import drift, feedback, plots
from kreislauf.monitoring.finding import Finding
from kreislauf.pages import markdown
from models import spec


def page(
    model_type: spec.ModelSpec,
    finding: Finding,
    moved: drift.Drift,
    slices: pl.DataFrame,
    past: pl.DataFrame,
    reactions: pl.DataFrame,
) -> str:
    """The finding as Markdown; `past` are the noted windows of the model type."""
    did = markdown.table(
        ["version", "variant", "answers", "clicks per answer"],
        feedback.by_variant(reactions.filter(pl.col("ts") >= finding.start))
        if reactions.height
        else [],
    )
    told = markdown.table(
        ["signal", "now", "usually", "limit", "windows", ""],
        [
            (
                s.name,
                f"{s.value:.4g}",
                f"{s.usual:.4g}",
                f"{s.limit:.2g}",
                s.windows,
                "alarm" if s.alarm else "",
            )
            for s in finding.signals
        ],
    )
    psi = markdown.table(
        ["column", "PSI"], [(name, f"{value:.3f}") for name, value in moved.values.items()]
    )
    by = markdown.table(
        ["slice", "", "groups", f"{model_type.metric} now", "when it was judged", "trivial baseline now"],
        [
            (r["slice"], r["value"], r["groups"], f"{r['live']:.4f} [{r['low']:.4f}, {r['high']:.4f}]",
             "" if r["reference"] is None else f"{r['reference']:.4f}", f"{r['baseline']:.4f}")
            for r in slices.iter_rows(named=True)
        ],
    )  # fmt: skip
    return "\n\n".join(
        [
            f"# {finding.model} version {finding.version}: {finding.verdict}",
            finding.reason,
            f"{model_type.metric}: {finding.realised} now, {finding.reference} when it was judged, {finding.groups} groups. "
            f"A trivial baseline gains {finding.gain} by learning anew.",
            f"![signals]({plots.signals(finding.signals)})",
            f"## Signals\n\n{told}",
            f"![history]({plots.history(past, model_type.metric)})",
            f"## {model_type.metric} by slice\n\n{by}" if by else "",
            f"## What people did with the answers\n\n{did}" if did else "",
            f"## Evidently\n\n{psi}\n\nIts report: MLflow, run of version {finding.version}, folder `monitor`.",
        ]
    )
