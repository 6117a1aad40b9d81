"""What has been lost since the last training: windows side by side, each with what a new version
would have won."""

import polars as pl

from kreislauf.clock import DAY_MS

REGRET = "regret"
"""Name of the number that says by how much a new version would have answered a window better."""
SCHEMA = {"start": pl.Int64, "end": pl.Int64, "verdict": pl.String, REGRET: pl.Float64}
"""Columns of windows side by side; times in ms since 1970 UTC, both inclusive."""


def non_overlapping(
    windows: pl.DataFrame,
    model: str,
    version: int,
    since: int,
    newest: tuple[int, int, str, float],
) -> pl.DataFrame:
    """The `newest` window (start and end in ms, verdict, regret), and windows of the version before
    it that overlap with no newer one, newest first: columns of `SCHEMA`.

    `windows` are rows of the table of that name. Windows that end at `since` (ms) or before it are
    left out.
    """
    rows = [newest]
    if windows.is_empty():
        return pl.DataFrame(rows, SCHEMA, orient="row")
    mine = windows.filter(
        pl.col("verdict") != "calibration",
        pl.col("end") > since,
        model=model,
        version=version,
        signal=REGRET,
    )
    newest_first = mine.sort("end", "start", descending=True)
    for row in newest_first.select("start", "end", "verdict", "value").rows():
        if row[1] < rows[-1][0]:
            rows.append(row)
    return pl.DataFrame(rows, SCHEMA, orient="row")


def accumulated_regret(windows: pl.DataFrame, since: int) -> float:
    """Regret of windows side by side after `since` (ms), in the metric times days.

    Windows without regret do not count against the others. A data fault says nothing about the
    model, so its window counts nothing.
    """
    length = pl.col("end") - pl.max_horizontal("start", pl.lit(since + 1)) + 1
    counted = windows.filter(pl.col("verdict") != "data fault", pl.col(REGRET) > 0)
    return float(counted.select((pl.col(REGRET) * length).sum()).item()) / DAY_MS
