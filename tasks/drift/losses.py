"""What has been lost since the last training: windows side by side, each with what a new version would have won."""

import polars as pl

from tasks.drift.view import LOSS
from tasks.drift.window import DAY_MS


def apart(noted: pl.DataFrame, model: str, version: int, since: int, end: int) -> pl.DataFrame:
    """Of the table of windows, the version's newest that ends at `end`, and those before that overlap with no newer one
    and end after `since` (both ms), newest first: columns start, end, verdict, loss."""
    mine = noted.filter(
        pl.col("verdict") != "calibration", pl.col("end").is_between(since, end, "right"),
        model=model, version=version, signal=LOSS,
    )  # fmt: skip
    rows, first = [], end + 1
    for row in mine.sort("end", "start", descending=True).select("start", "end", "verdict", "value").rows():
        if row[1] < first:
            rows.append(row)
            first = row[0]
    columns = {"start": pl.Int64, "end": pl.Int64, "verdict": pl.String, "loss": pl.Float64}
    return pl.DataFrame(rows, columns, orient="row")


def lost(seen: pl.DataFrame, since: int) -> float:
    """What windows of `apart` come to after `since` (ms), in points of the metric times days."""
    length = pl.col("end") - pl.max_horizontal("start", pl.lit(since + 1)) + 1
    return float(seen.select((pl.col("loss") * length).sum()).item()) / DAY_MS
