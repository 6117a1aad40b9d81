"""Names of yesterday, where they are stored: read for one version, written no more.

Verdicts, signals and columns of the lake's tables `windows` and `alarms`, the monitor's status file
beside the release log, and parameters of deployments.
"""

from typing import Any

import polars as pl

VERDICTS = {
    "quiet": "stable",
    "world changed": "concept drift",
    "data broken": "data fault",
    "season or mix": "covariate shift",
}
SIGNALS = {
    "fresh": "refit_baseline",
    "late": "refit_baseline_tail",
    "familiar": "label_correlation",
    "loss": "regret",
    "rows": "sample_rows",
}
LIMITS = {"usual": "mean", "limit": "tolerance"}
"""Fields of a signal in the status file."""
PARAMETERS = {
    "worth": "min_gain",
    "cost": "retraining_cost",
    "needed": "confirmations",
    "of": "out_of",
}
"""Parameters of the flow `monitor`."""


def table(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows of `windows` or `alarms` with today's verdicts, signals and columns."""
    if "verdict" in rows.columns:
        rows = rows.with_columns(pl.col("verdict").replace(VERDICTS))
    if "octave" in rows.columns:
        rows = _windows(rows)
    return rows


def _windows(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows of `windows`, of which those of yesterday have `octave` where today's have
    `length_bin`; a signal of today may have any name."""
    of_yesterday = pl.col("octave").is_not_null()
    signal = pl.when(of_yesterday).then(pl.col("signal").replace(SIGNALS)).otherwise("signal")
    rows = rows.with_columns(signal=signal)
    if "length_bin" not in rows.columns:
        return rows.rename({"octave": "length_bin"})
    return rows.with_columns(pl.coalesce("length_bin", "octave")).drop("octave")


def status(content: dict[str, Any]) -> dict[str, Any]:
    """The content of a status file with today's names."""
    verdict = content["verdict"]
    signals = {}
    for name, limits in content.get("signals", {}).items():
        today = {LIMITS.get(field, field): value for field, value in limits.items()}
        signals[SIGNALS.get(name, name)] = today
    return content | {"verdict": VERDICTS.get(verdict, verdict), "signals": signals}


def parameters(today: dict[str, Any], former: dict[str, Any]) -> dict[str, Any]:
    """Today's parameters, in place of which those count that a deployment still has under their
    former names; None is not given."""
    given = {PARAMETERS[name]: value for name, value in former.items() if value is not None}
    return today | given


def warnings(former: dict[str, Any]) -> list[str]:
    """A sentence for each parameter that a deployment still gives under its former name."""
    return [
        f"The parameter {name} is called {PARAMETERS[name]} now: rename it in the deployment."
        for name, value in former.items()
        if value is not None
    ]
