"""Has the data moved? An Evidently report of a window against a reference. The only module that
imports evidently."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
from polars import selectors

if TYPE_CHECKING:
    import pandas

SAMPLE = 20_000
"""Maximum rows compared of each side."""
THRESHOLD = 0.2
"""Population stability index of a column that drifted: the usual "significant change"."""


@dataclass(frozen=True)
class Drift:
    """Population stability index of each monitored column, and the report that shows it."""

    values: dict[str, float]
    report: Path


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
    preset = DataDriftPreset(
        num_method="psi",
        cat_method="psi",
        num_threshold=THRESHOLD,
        cat_threshold=THRESHOLD,
    )
    report = Report([preset], include_tests=True)
    snapshot = report.run(_sample(window), _sample(reference))
    snapshot.save_html(str(path))
    return Drift(_values(snapshot.dict(), window.columns), path)


def _values(report: dict, columns: list[str]) -> dict[str, float]:
    values = {
        metric["config"]["column"]: float(metric["value"])
        for metric in report["metrics"]
        if "column" in metric["config"] and "method" in metric["config"]
    }
    if set(values) != set(columns):
        raise ValueError(f"Evidently reported on {sorted(values)}, asked were {sorted(columns)}.")
    return values


def _sample(frame: pl.DataFrame) -> "pandas.DataFrame":
    if len(frame) > SAMPLE:
        frame = frame.sample(SAMPLE, seed=0)
    # Evidently leaves unsigned numbers out, such as the lengths of texts.
    return frame.with_columns(selectors.unsigned_integer().cast(pl.Float64)).to_pandas()
