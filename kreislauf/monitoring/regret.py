"""What has been lost since the last training: windows side by side, each with what a new version
would have won."""

import polars as pl

from kreislauf.clock import DAY_MS
from kreislauf.monitoring.probe import LOSS

COLUMNS = {"start": pl.Int64, "end": pl.Int64, "verdict": pl.String, "loss": pl.Float64}
"""Of windows side by side; times in ms since 1970 UTC, both inclusive."""


def apart(
    noted: pl.DataFrame, model: str, version: int, since: int, newest: tuple[int, int, str, float]
) -> pl.DataFrame:
    """The `newest` window (start and end in ms, verdict, loss), and of the table of windows those
    of the version before it that overlap with no newer one and end after `since` (ms), newest
    first: columns start, end, verdict, loss."""
    mine = noted.filter(
        pl.col("verdict") != "calibration", pl.col("end") > since,
        model=model, version=version, signal=LOSS,
    )  # fmt: skip
    rows = [newest]
    for row in (
        mine.sort("end", "start", descending=True).select("start", "end", "verdict", "value").rows()
    ):
        if row[1] < rows[-1][0]:
            rows.append(row)
    return pl.DataFrame(rows, COLUMNS, orient="row")


def lost(seen: pl.DataFrame, since: int) -> float:
    """What windows of `apart` come to after `since` (ms), in points of the metric times days. Where
    nothing was lost, nothing was won; and what is said of broken data is said of no model."""
    length = pl.col("end") - pl.max_horizontal("start", pl.lit(since + 1)) + 1
    counted = seen.filter(pl.col("verdict") != "data broken", pl.col("loss") > 0)
    return float(counted.select((pl.col("loss") * length).sum()).item()) / DAY_MS
