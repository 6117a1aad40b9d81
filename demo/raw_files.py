"""A shop's events as raw files in OTTO's format."""

from pathlib import Path

import msgspec
import polars as pl

from kreislauf.clock import DAY_MS

HISTORY = 0.4
"""Share of the sessions that the first model learns from, of real ones."""
PERIOD_DAYS = 7.0
"""Approximate days of a period."""


def write(events: pl.DataFrame, path: Path) -> Path:
    """Write events (columns session, aid, ts, type), a line a session. Returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sessions(events).write_ndjson(path)
    return path


def write_lines(lines: list[dict], path: Path) -> Path:
    """Write raw lines of any table. Returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\n".join(map(msgspec.json.encode, lines)))
    return path


def split_by_time(events: pl.DataFrame, folder: Path) -> tuple[list[Path], float]:
    """Write the history and each period as a file.

    Returns the files and the days of a period. The history is the time until HISTORY of the
    sessions have begun; the rest is cut into equal periods of about PERIOD_DAYS. A session that
    goes on in a later period continues in that period's file.
    """
    starts = events.group_by("session").agg(pl.col("ts").min())["ts"].sort()
    begin = int(starts[int(len(starts) * HISTORY)])
    end = int(events["ts"].max()) + 1  # type: ignore[arg-type]
    count = max(1, round((end - begin) / DAY_MS / PERIOD_DAYS))
    length = (end - begin) / count
    number = ((pl.col("ts") - begin) / length).floor().cast(pl.Int32).clip(-1, count - 1)
    periods = events.with_columns(period=number).partition_by(
        "period", as_dict=True, include_key=False
    )
    files = [
        write(periods[(number,)], folder / f"{number + 1:03d}.jsonl")
        for number in range(-1, count)
        if (number,) in periods
    ]
    return files, length / DAY_MS


def sessions(events: pl.DataFrame) -> pl.DataFrame:
    """A row for each session, with its events as a list, in the order of the first one."""
    return events.group_by("session", maintain_order=True).agg(
        pl.struct("aid", "ts", "type").alias("events")
    )
