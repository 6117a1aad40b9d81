"""How soon could anybody know? The hours that the best detector of a known change needs."""

import math

import numpy as np
import polars as pl

from kreislauf.clock import HOUR_MS
from kreislauf.evaluation import scoring
from kreislauf.monitoring.probe import Probe

FALSE_ALARM_WEEKS = 100
"""Weeks without change in which the oracle raises one false alarm."""


def hours(probe: Probe, history: pl.DataFrame, rows: pl.DataFrame, change: int) -> float | None:
    """Hours after `change` (ms) until CUSUM on the likelihood ratio of a session's category is
    beyond its limit; None if it never is.

    The oracle knows how often each category occurs before and after the change, in this very shop.
    With a limit of log(n) a false alarm comes after n sessions at the earliest, on average (Lorden,
    "Procedures for reacting to a change in distribution", 1971).
    """
    before = categories(
        probe, pl.concat([history.tail(50_000), rows]).filter(pl.col("ts") < change)
    )
    after = categories(probe, rows.filter(pl.col("ts").min().over("session") >= change))
    names, index = np.unique(
        np.concatenate([before["category"], after["category"]]), return_inverse=True
    )
    counts_before = np.bincount(index[: before.height], minlength=len(names)) + 0.5
    counts_after = np.bincount(index[before.height :], minlength=len(names)) + 0.5
    ratio = np.log(counts_after / counts_after.sum()) - np.log(counts_before / counts_before.sum())
    sessions_a_week = before.height / np.ptp(before["end"].to_numpy()) * 7 * 24 * HOUR_MS
    limit = math.log(FALSE_ALARM_WEEKS * sessions_a_week)
    total = 0.0
    for end, step in zip(after["end"], ratio[index[before.height :]], strict=True):
        total = max(0.0, total + float(step))
        if total >= limit:
            return (end - change) / HOUR_MS
    return None


def categories(probe: Probe, rows: pl.DataFrame) -> pl.DataFrame:
    """Category and end (ms) of each session, in the order of their ends: its length, types, share
    of repeats, of new articles and of hits of the version, and whether it is in order."""
    model_type = probe.model_type
    rows = rows.sort("session", "ts", "aid", "type")
    examples = model_type.examples(rows)
    scores = model_type.score(examples, scoring.answer(probe.onnx, examples.inputs))
    hits = pl.DataFrame({"session": examples.groups, "hit": scores}).group_by("session").mean()
    repeat = (pl.col("aid") == pl.col("aid").shift()).over("session")
    reference = probe.profile.select("aid", "seen")
    sessions = (
        rows.join(reference, on="aid", how="left")
        .group_by("session")
        .agg(
            end=pl.col("ts").max(),
            length=pl.len().log(2).round(),
            repeats=(repeat.fill_null(False).mean() * 4).round(),
            new=(pl.col("seen").is_null().mean() * 4).ceil(),
            placeholder=(pl.col("aid") == 0).any(),
            clicks=(pl.col("type") == "clicks").all(),
        )
        .join(hits, on="session", how="left")
        .with_columns((pl.col("hit") * 4).round())
    )
    names = ["length", "repeats", "new", "placeholder", "clicks", "hit"]
    return sessions.sort("end").select(
        "end", category=pl.concat_str(pl.col(names), separator=" ", ignore_nulls=True)
    )
