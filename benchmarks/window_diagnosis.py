"""A window of rows in memory, diagnosed by the monitor's own steps: measure, compare, diagnose."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl

from kreislauf.monitoring import calibration, measurement
from kreislauf.monitoring.diagnosis import Diagnosis, diagnose
from kreislauf.monitoring.measurement import Measurement
from kreislauf.monitoring.probe import Probe, gain_of_keeping
from kreislauf.monitoring.tail_probe import TailProbe
from kreislauf.monitoring.tails import FRACTIONS, Tail, TailHistory
from kreislauf.monitoring.window import TrustedRows, Window, read_window


@dataclass(frozen=True)
class History:
    """What windows and tails were like in which nothing was wrong."""

    windows: list[dict[str, float]]
    """The signals of each window."""
    tails: dict[int, TailHistory] = field(default_factory=dict)
    """What a baseline learns in tails, by fraction."""

    def by_signal(self) -> dict[str, list[float]]:
        """Each signal in all of the windows."""
        return {
            name: [signals[name] for signals in self.windows if name in signals]
            for name in self.windows[0]
        }

    def with_windows(self, windows: list[dict[str, float]]) -> "History":
        """The same with more windows."""
        return replace(self, windows=self.windows + windows)


@dataclass(frozen=True)
class DiagnosedWindow:
    """A window with all that was measured, and what it means."""

    window: Window
    values: dict[str, float]
    """Each signal but the live quality."""
    measurement: Measurement
    diagnosis: Diagnosis


def calibrate(probe: Probe, learnt: pl.DataFrame, first: int, last: int, length: int) -> History:
    """The history of windows of `length` ms among the rows that a version learnt from, from `first`
    to `last` (ms, inclusive)."""
    rows = TrustedRows.of(probe.model_type.table, learnt)
    signals = calibrated_signals(probe, rows, first, last, length)
    return History(signals, TailProbe(probe).histories(rows, last, length))


def calibrated_signals(
    probe: Probe, rows: TrustedRows, first: int, last: int, length: int
) -> list[dict[str, float]]:
    """The signals of each of `calibration.calibration_windows`."""
    calibrated = []
    windows = calibration.calibration_windows(probe.model_type, rows, first, last, length)
    for window, profile, usual_rows in windows:
        signals = probe.signals(window, profile, usual_rows)
        signals[calibration.SAMPLE_SIZE] = float(window.sample.height)
        calibrated.append(signals)
    return calibrated


def complete(
    head: Measurement,
    probe: Probe,
    window: Window,
    before: pl.DataFrame,
    history: dict[str, list[float]],
) -> Measurement:
    """The measurement with the window's signals and quality, as the flow measures it."""
    usual_rows = float(np.median(history[calibration.SAMPLE_SIZE]))
    values = probe.signals(window, probe.profile, usual_rows)
    quality = probe.quality(window, before)
    measured = {
        "signals": measurement.with_history(values, history),
        "quality": measurement.window_quality(probe, window, quality),
        "newest_gain": measurement.newest_gain(probe, window, head.tails, before),
    }
    return head.model_copy(update=measured)


def newest_tails(
    probe: TailProbe, rows: TrustedRows, end: int, length: int, since: int, history: History
) -> list[Tail]:
    """The newest tails until `end` of a window of `length`, not before `since`; all in ms."""
    start = max(end + 1 - length // min(FRACTIONS), since)
    newest = read_window(probe.probe.model_type, rows, probe.probe.profile, start, end)
    return probe.tails(newest.sample, end, length, history.tails)


def diagnose_window(
    probe: Probe,
    rows: pl.DataFrame,
    start: int,
    end: int,
    history: History,
    min_gain: float,
    first: int | None = None,
) -> DiagnosedWindow:
    """The window from `start` to `end` (ms, inclusive) of `rows`.

    `first` (ms) is the oldest time that a refitted baseline learns from; by default that of the
    oldest row.
    """
    model_type = probe.model_type
    if first is None:
        first = int(rows[model_type.table.time].min())  # type: ignore[arg-type]
    source = TrustedRows.of(model_type.table, rows)
    window = read_window(model_type, source, probe.profile, start, end)
    before = calibration.newest_rows(model_type, source, first, start - 1)
    tails = newest_tails(TailProbe(probe), source, end, end + 1 - start, start, history)
    return diagnose_sample(probe, window, before, history, min_gain, tails)


def diagnose_sample(
    probe: Probe,
    window: Window,
    before: pl.DataFrame,
    history: History,
    min_gain: float,
    tails: Sequence[Tail] = (),
) -> DiagnosedWindow:
    """A window that has been read, given the rows `before` it from which a baseline learns, and its
    newest `tails`."""
    model_type = probe.model_type
    rows = TrustedRows.of(model_type.table, window.sample)
    head = measurement.begin(model_type.name, 1, probe, rows, list(tails), (0, 0), False)
    head = measurement.of_window(head, model_type, window)
    measured = head
    if not head.shortage:
        measured = complete(head, probe, window, before, history.by_signal())
    diagnosis = diagnose(measured, measurement.compare(measured), min_gain)
    if diagnosis.noise_only:
        diagnosis = diagnosis.keeping_window(gain_of_keeping(model_type, window, before))
    values = {name: signal.value for name, signal in measured.signals.items()}
    return DiagnosedWindow(window, values, measured, diagnosis)
