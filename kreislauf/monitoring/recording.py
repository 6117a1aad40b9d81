"""Record a finding and do what follows: tables, status file, events, alarms, exclusions.

A run that is killed between two of them is made good by the next look at the window: tables are
written once, events may come twice. A stretch is excluded last, because afterwards its rows are not
there to be diagnosed again.
"""

import time

import polars as pl

from kreislauf import events
from kreislauf.lake import exclusions, journal
from kreislauf.monitoring import alarms, calibration, status, tables
from kreislauf.monitoring.finding import Finding
from kreislauf.monitoring.measurement import Measurement
from kreislauf.monitoring.policy import Action
from kreislauf.monitoring.regret import REGRET

EVENTS = {"drift": events.DRIFT_DETECTED, "decay": events.DECAY_DETECTED}


def record_window(finding: Finding, measurement: Measurement) -> None:
    """Put the window into the lake: its signals, and the live quality in its slices."""
    if measurement.quality is None or finding.verdict == "not enough data":
        return
    head = (finding.model, finding.version, finding.start, finding.end)
    key = "/".join(map(str, head))
    values = {name: measured.value for name, measured in measurement.signals.items()}
    values[measurement.metric] = measurement.quality.live
    values[tables.BASELINE] = measurement.quality.baseline
    if measurement.quality.first_version is not None:
        values[tables.FIRST_VERSION] = measurement.quality.first_version
    values["gain"] = measurement.quality.gain.mean
    values[REGRET] = finding.regret
    length = finding.end - finding.start + 1
    rows = calibration.signal_rows(*head, length, finding.verdict, values)
    by_run = rows.with_columns(flow_run=pl.lit(finding.flow_run))
    journal.append_once(tables.WINDOWS, key, by_run)
    if measurement.slices:
        columns = dict(zip(("model", "version", "start", "end"), head, strict=True))
        slices = pl.DataFrame([s.model_dump() for s in measurement.slices], schema=SLICE_SCHEMA)
        stored = slices.with_columns(**{name: pl.lit(value) for name, value in columns.items()})
        journal.append_once(tables.SLICES, key, stored)


SLICE_SCHEMA = {
    "slice": pl.String,
    "value": pl.String,
    "groups": pl.Int64,
    "live": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "reference": pl.Float64,
    "baseline": pl.Float64,
}
"""Columns of the table `slices`, before those that say which window."""


def write_status(finding: Finding, wait: str) -> None:
    """Leave the finding where the gateway shows it to Prometheus, and why trainings `wait` where
    they look for it."""
    signals = {
        signal.name: status.SignalStatus(
            value=signal.value, mean=signal.mean, tolerance=signal.tolerance
        )
        for signal in finding.signals
    }
    status.write(
        status.MonitorStatus(
            model=finding.model,
            version=finding.version,
            end=finding.end,
            at=int(time.time() * 1000),
            verdict=finding.verdict,
            wait=wait,
            signals=signals,
        )
    )


def carry_out(finding: Finding, action: Action, table: str) -> None:
    """Emit the event, record the alarm, and leave a faulty stretch of `table` out of later
    trainings."""
    if action.event == "fault":
        start, end = action.exclude or (finding.start, finding.end)
        events.emit_table_event(
            events.DATA_BROKEN,
            table,
            finding.reason,
            model=finding.model,
            start=start,
            end=end,
            left_out=bool(action.exclude),
        )
    elif action.event == "question":
        events.emit_table_event(events.DATA_QUESTIONED, table, action.sentence, model=finding.model)
    elif action.event:
        events.emit_model_event(
            EVENTS[action.event],
            finding.model,
            finding.reason,
            version=finding.version,
            groups=finding.groups,
        )
    if action.alarm:
        alarms.record(finding, action)
    if action.exclude:
        exclusions.exclude(table, *action.exclude, finding.reason, finding.holdout)
