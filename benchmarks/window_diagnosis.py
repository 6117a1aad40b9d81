"""A window of rows in memory, diagnosed by the monitor's own steps: measure, compare, diagnose."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from kreislauf.monitoring import calibration, measurement
from kreislauf.monitoring.diagnosis import Diagnosis, diagnose
from kreislauf.monitoring.measurement import Measurement
from kreislauf.monitoring.probe import Probe, gain_of_keeping
from kreislauf.monitoring.window import TrustedRows, Window, read_window


@dataclass(frozen=True)
class DiagnosedWindow:
    """A window with all that was measured, and what it means."""

    window: Window
    values: dict[str, float]
    """Each signal but the live quality."""
    measurement: Measurement
    diagnosis: Diagnosis


def calibrate(
    probe: Probe, learnt: pl.DataFrame, first: int, last: int, length: int
) -> list[dict[str, float]]:
    """The signals of calibration windows among the rows that a version learnt from, from `first` to
    `last` (ms, inclusive), for windows of `length` ms."""
    model_type = probe.model_type
    rows = TrustedRows.of(model_type.table, learnt)
    history = []
    windows = calibration.calibration_windows(model_type, rows, first, last, length)
    for window, profile, usual_rows in windows:
        signals = probe.signals(window, profile, usual_rows)
        signals[calibration.SAMPLE_SIZE] = float(window.sample.height)
        history.append(signals)
    return history


def diagnose_window(
    probe: Probe,
    rows: pl.DataFrame,
    start: int,
    end: int,
    history: list[dict[str, float]],
    min_gain: float,
    first: int | None = None,
) -> DiagnosedWindow:
    """The window from `start` to `end` (ms, inclusive) of `rows`.

    `history` are the signals of windows in which nothing was wrong. `first` (ms) is the oldest time
    that a refitted baseline learns from; by default that of the oldest row.
    """
    model_type = probe.model_type
    if first is None:
        first = int(rows[model_type.table.time].min())  # type: ignore[arg-type]
    source = TrustedRows.of(model_type.table, rows)
    window = read_window(model_type, source, probe.profile, start, end)
    before = calibration.newest_rows(model_type, source, first, start - 1)
    return diagnose_sample(probe, window, before, history, min_gain)


def diagnose_sample(
    probe: Probe,
    window: Window,
    before: pl.DataFrame,
    history: list[dict[str, float]],
    min_gain: float,
) -> DiagnosedWindow:
    """A window that has been read, given the rows `before` it from which a baseline learns."""
    by_name = {
        name: [signals[name] for signals in history if name in signals] for name in history[0]
    }
    usual_rows = float(np.median(by_name[calibration.SAMPLE_SIZE]))
    values = probe.signals(window, probe.profile, usual_rows)
    quality = probe.quality(window, before)
    measured = Measurement(
        model=probe.model_type.name,
        version=1,
        metric=probe.model_type.metric,
        start=window.start,
        end=window.end,
        groups=window.groups,
        reference=probe.reference,
        confidence=probe.model_type.policy.confidence,
        signals=measurement.with_history(values, by_name),
        quality=measurement.window_quality(probe, window, quality),
        slices=probe.slices(window, quality),
    )
    diagnosis = diagnose(measured, measurement.compare(measured), min_gain)
    if diagnosis.noise_only:
        diagnosis = diagnosis.keeping_window(gain_of_keeping(probe.model_type, window, before))
    return DiagnosedWindow(window, values, measured, diagnosis)
