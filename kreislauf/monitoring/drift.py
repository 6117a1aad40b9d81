"""Has the data moved? An Evidently report of a window against a reference. The only module that
imports evidently."""

from dataclasses import dataclass
from pathlib import Path

import polars as pl

SAMPLE = 20_000
THRESHOLD = 0.2
"""Population stability index from which a column counts as drifted: the usual "significant
change"."""


@dataclass(frozen=True)
class Drift:
    """Population stability index of each monitored column, and the report that shows it."""

    values: dict[str, float]
    report: Path

    @property
    def drifted(self) -> list[str]:
        """Columns that moved, the farthest first."""
        return sorted(
            (c for c, v in self.values.items() if v >= THRESHOLD), key=lambda c: -self.values[c]
        )

    def sentence(self) -> str:
        """What moved, for people."""
        moved = ", ".join(f"{column} (PSI {self.values[column]:.2f})" for column in self.drifted)
        return f"Drift: {moved}." if moved else "No column drifted."


def compare(window: pl.DataFrame, reference: pl.DataFrame, path: Path) -> Drift:
    """Compare monitored columns, a row for each of the table's, and write Evidently's HTML to
    `path`.

    Both frames must have the same columns: Evidently would leave out a missing one without a word,
    so that is a ValueError here. At most SAMPLE rows of each are compared, drawn with a fixed seed.
    """
    from evidently import Report
    from evidently.presets import DataDriftPreset

    if window.columns != reference.columns:
        raise ValueError(
            f"The window has the columns {window.columns}, the reference {reference.columns}."
        )
    method = {
        "num_method": "psi",
        "cat_method": "psi",
        "num_threshold": THRESHOLD,
        "cat_threshold": THRESHOLD,
    }
    snapshot = Report([DataDriftPreset(**method)], include_tests=True).run(
        _sample(window), _sample(reference)
    )
    snapshot.save_html(str(path))
    return Drift(_values(snapshot.dict(), window.columns), path)


def _values(report: dict, columns: list[str]) -> dict[str, float]:
    found = {
        metric["config"]["column"]: float(metric["value"])
        for metric in report["metrics"]
        if "column" in metric["config"] and "method" in metric["config"]
    }
    if set(found) != set(columns):
        raise ValueError(f"Evidently reported on {sorted(found)}, asked were {sorted(columns)}.")
    return found


def _sample(frame: pl.DataFrame):
    return (frame.sample(SAMPLE, seed=0) if len(frame) > SAMPLE else frame).to_pandas()
