"""The history of a version's signals: windows in which nothing was wrong.

Most are from before its hold-out, where nothing can be wrong, because the version learnt from them.
"""

import math
from collections.abc import Iterator, Mapping

import polars as pl

from kreislauf.clock import DAY_MS
from kreislauf.lake import journal
from kreislauf.monitoring import tables
from kreislauf.monitoring.limits import MIN_WINDOWS
from kreislauf.monitoring.statistics import MIN_GROUPS
from kreislauf.monitoring.tails import REFIT_FRACTIONS, TailHistory
from kreislauf.monitoring.window import SAMPLE_ROWS, TrustedRows, Window, read_window
from models.spec import ModelSpec

MAX_WINDOWS = 16
"""Most windows from which tolerances are learnt."""
LEARN_ROWS = 1_000_000
"""Newest rows, about, from which a baseline is refitted."""
TAIL_REFIT = "tail_refit"
"""Name under which stands what a baseline learnt in a stretch as long as a tail."""
TAIL_ROWS = "tail_rows"
"""Name under which stands how many rows it learnt from."""
SAMPLE_SIZE = "sample_rows"
"""Name under which the number of rows of a window's sample stands beside its signals."""


def calibration_windows(
    model_type: ModelSpec, rows: TrustedRows, first: int, last: int, length: int
) -> Iterator[tuple[Window, pl.DataFrame, float]]:
    """Windows in the newer half of what a version learnt from, from `first` to `last` (ms,
    inclusive), each with the training profile of the rows before it, and the rows of a usual
    window.

    The windows are `length` ms long. If there were fewer than `MAX_WINDOWS`, they are shorter, down
    to a day: shorter ones vary more, so tolerances are too wide and not too narrow, and few windows
    would make them wider still.
    """
    half = (last + 1 - first) // 2
    count = min(MAX_WINDOWS, max(MIN_WINDOWS + 1, half // min(length, DAY_MS)))
    step = min(length, half // count)
    mean_rows = rows.count(last + 1 - step * count, last) / count
    for number in range(count):
        start = last + 1 - step * (count - number)
        before = rows.between(None, start - 1)
        profile = model_type.training_profile(before).collect(engine="streaming")
        window = read_window(model_type, rows, profile, start, start + step - 1)
        if window.sample[model_type.table.group].n_unique() >= MIN_GROUPS:
            yield window, profile, min(mean_rows, max(window.sample.height, SAMPLE_ROWS))


def newest_rows(model_type: ModelSpec, rows: TrustedRows, first: int, last: int) -> pl.DataFrame:
    """The newest rows until `last` (ms, inclusive), in whole groups: all of them back to `first`,
    or about `LEARN_ROWS`, of days as few as have so many."""
    table = model_type.table
    days = 1
    start = last + 1 - DAY_MS
    while start > first and rows.count(start, last) < LEARN_ROWS:
        days *= 2
        start = last + 1 - days * DAY_MS
    start = max(start, first)
    sampled_share = max(1, round(rows.count(start, last) / LEARN_ROWS))
    whole_groups = pl.col(table.group).hash(0) % sampled_share == 0
    drawn = rows.between(start, last).filter(whole_groups).collect(engine="streaming")
    return drawn.sort(table.order)


def length_bin(length: int) -> int:
    """Bin of windows that are about as long as one of `length` ms: its logarithm to base 2,
    rounded."""
    return round(math.log2(length))


def signal_rows(
    model: str,
    version: int,
    start: int,
    end: int,
    length: int,
    verdict: str,
    signals: dict[str, float],
) -> pl.DataFrame:
    """A window's signals as rows of the table `windows`; `length` (ms) is that of the windows whose
    history it joins."""
    head = {
        "model": model,
        "version": version,
        "start": start,
        "end": end,
        "length_bin": length_bin(length),
        "verdict": verdict,
    }
    rows = [head | {"signal": name, "value": float(value)} for name, value in signals.items()]
    return pl.DataFrame(rows)


def reference_windows(
    windows: pl.DataFrame, model: str, version: int, start: int, end: int
) -> pl.DataFrame:
    """The rows of the table `windows` from which tolerances for one from `start` to `end` are
    learnt: the version's calibration, and stable windows before it that do not overlap."""
    if windows.is_empty():
        return windows
    mine = {"model": model, "version": version, "length_bin": length_bin(end - start + 1)}
    earlier = windows.filter(pl.col("end") < start, **mine)
    chosen = []
    until = -1
    stretches = earlier.select("start", "end", "verdict").unique().sort("start", "end")
    for first, last, verdict in stretches.rows():
        if verdict == "calibration" or (verdict == "stable" and first > until):
            chosen.append((first, last))
            until = last
    kept = pl.DataFrame(chosen, {"start": pl.Int64, "end": pl.Int64}, orient="row")
    return earlier.join(kept, on=["start", "end"], how="semi")


def recorded_history(model: str, version: int, start: int, end: int) -> dict[str, list[float]]:
    """Each signal in the recorded windows whose history one from `start` to `end` (ms) joins, by
    name; empty if there are none."""
    recorded = tables.read(tables.WINDOWS, pl.col("end") < start, model=model, version=version)
    reference = reference_windows(recorded, model, version, start, end)
    if reference.is_empty():
        return {}
    by_signal = reference.group_by("signal")
    return {str(name): rows["value"].to_list() for (name,), rows in by_signal}


def record(
    model: str, version: int, length: int, calibrated: list[tuple[int, int, dict[str, float]]]
) -> None:
    """Put calibration windows into the lake, once for each version and bin of `length` (ms):
    beginning, end (ms) and signals of each."""
    frames = []
    for start, end, signals in calibrated:
        frames.append(signal_rows(model, version, start, end, length, "calibration", signals))
    if frames:
        key = f"{model}/{version}/{length_bin(length)}"
        journal.append_once(tables.WINDOWS, key, pl.concat(frames))


def recorded_tails(model: str, version: int, length: int) -> dict[int, TailHistory]:
    """What a baseline learns in tails of windows of `length` ms, by fraction, as recorded for a
    version; empty if nothing was."""
    recorded = tables.read(tables.WINDOWS, model=model, version=version)
    if recorded.is_empty():
        return {}
    recorded = recorded.filter(verdict="calibration")
    histories = {}
    for fraction in REFIT_FRACTIONS:
        rows = recorded.filter(pl.col("length_bin") == length_bin(length // fraction))
        refits = rows.filter(signal=TAIL_REFIT)["value"].to_list()
        amounts = rows.filter(signal=TAIL_ROWS)["value"].to_list()
        if refits:
            histories[fraction] = TailHistory(amount=int(amounts[0]), refits=refits)
    return histories


def record_tails(
    model: str, version: int, length: int, histories: Mapping[int, TailHistory]
) -> None:
    """Put what a baseline learns in tails into the lake, once for each version and bin of `length`
    (ms)."""
    frames = []
    for fraction, history in histories.items():
        place = (model, version, 0, 0, length // fraction, "calibration")
        amount = {TAIL_ROWS: float(history.amount)}
        frames += [signal_rows(*place, amount)]
        frames += [signal_rows(*place, {TAIL_REFIT: refit}) for refit in history.refits]
    if frames:
        key = f"{model}/{version}/tails/{length_bin(length)}"
        journal.append_once(tables.WINDOWS, key, pl.concat(frames))
