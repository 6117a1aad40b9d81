"""Tasks of monitor: measure the newest window of a version, and record what was found there."""

import tempfile
from pathlib import Path

import numpy as np
import polars as pl
from prefect import task
from prefect.artifacts import create_markdown_artifact

from kreislauf import lake, registry
from kreislauf.clock import DAY_MS
from kreislauf.evaluation.intervals import Interval
from kreislauf.monitoring import (
    calibration,
    drift,
    feedback,
    inputs,
    limits,
    measurement,
    recording,
    retention,
    tables,
)
from kreislauf.monitoring.finding import Finding
from kreislauf.monitoring.measurement import Measurement
from kreislauf.monitoring.policy import Action
from kreislauf.monitoring.probe import Probe, gain_of_keeping
from kreislauf.monitoring.window import Window, read_window
from kreislauf.pages import monitor as pages
from kreislauf.settings import settings
from models import spec

PLOTTED_DAYS = 91
"""Days of windows that the page shows."""


@task(task_run_name="measure-{model}-{version}")
def measure(model: str, version: int, window_days: float) -> Measurement:
    """Measure one version over the newest window, at most back to its own hold-out.

    Its history is measured, too, in the first window after its hold-out.

    Raises RuntimeError when no gate ever scored the version, LakeError, RegistryError.
    """
    model_type = spec.load(model)
    champion = registry.get(model, version)
    lineage = champion.lineage
    # Before the rows are taken: there are none after it.
    end = lake.watermark(model_type.table) or 0
    start = max(end - int(window_days * DAY_MS), lineage.watermark) + 1
    rows = inputs.trusted_rows(model_type)
    with tempfile.TemporaryDirectory() as folder:
        probe = inputs.probe_of(model_type, champion, rows, Path(folder))
        with lake.reading(model_type.table):
            window = read_window(model_type, rows, probe.profile, start, end)
        head = measurement.begin(model, version, probe, rows, window)
        if head.shortage:
            return head
        history = calibration.recorded_history(model, version, start, end)
        if not history:
            learnt = (lineage.start, lineage.holdout - 1)
            calibrated = []
            with lake.reading(model_type.table):
                for earlier, profile, usual_rows in calibration.calibration_windows(
                    model_type, rows, *learnt, end - start + 1
                ):
                    numbers = probe.signals(earlier, profile, usual_rows)
                    numbers[calibration.SAMPLE_SIZE] = float(earlier.sample.height)
                    calibrated.append((earlier.start, earlier.end, numbers))
            calibration.record(model, version, end - start + 1, calibrated)
            history = calibration.recorded_history(model, version, start, end)
        heights = history.get(calibration.SAMPLE_SIZE, [])
        if len(heights) < limits.MIN_WINDOWS:
            return head.model_copy(update={"shortage": measurement.short_history(version)})
        with lake.reading(model_type.table):
            before = calibration.newest_rows(model_type, rows, lineage.start, start - 1)
        values = probe.signals(window, probe.profile, float(np.median(heights)))
        quality = probe.quality(window, before)
        reactions = feedback.reactions(model, start, end)
        signals = measurement.with_history(values, history)
        shares = lake.rejected_shares(model_type.table, lineage.table_version)
        signals |= inputs.rejected_share(champion, shares)
        signals |= feedback.clicks_per_answer(reactions, version, start)
        return head.model_copy(
            update={
                "signals": signals,
                "quality": measurement.window_quality(probe, window, quality),
                "slices": probe.slices(window, quality),
                "drift": _drift(probe, champion, window),
                "clicks": feedback.clicks_by_variant(reactions, start),
            }
        )


@task(task_run_name="measure-keeping-{measurement.model}-{measurement.version}")
def measure_keeping(measurement: Measurement) -> Interval:
    """Gain of a baseline by learning from the measured window, over one that leaves it out."""
    model_type = spec.load(measurement.model)
    champion = registry.get(measurement.model, measurement.version)
    profile = pl.read_parquet(registry.artifact(champion, "training_profile"))
    rows = inputs.trusted_rows(model_type, measurement.table_version, measurement.excluded)
    first = champion.lineage.start
    start = measurement.start
    with lake.reading(model_type.table):
        window = read_window(model_type, rows, profile, start, measurement.end)
        before = calibration.newest_rows(model_type, rows, first, start - 1)
    return gain_of_keeping(model_type, window, before)


@task(task_run_name="record-{finding.model}-{finding.version}")
def record(finding: Finding, measurement: Measurement, action: Action) -> None:
    """Store the window, show the page, write the status, and do what follows."""
    recording.record_window(finding, measurement)
    if finding.verdict != "not enough data":
        since = finding.end - PLOTTED_DAYS * DAY_MS
        windows = tables.read(tables.WINDOWS, pl.col("end") > since, model=finding.model)
        text = pages.page(finding, measurement, action, windows)
        key = f"monitor-{finding.model.replace('_', '-')}"
        create_markdown_artifact(key=key, markdown=text)
    recording.write_status(finding)
    recording.carry_out(finding, action, spec.load(finding.model).table.name)


@task(task_run_name="forget-{model}")
def forget_reports(model: str) -> int:
    """Delete Evidently's pages that are older than the setting, or not the last of their kind on
    their day; their number."""
    return retention.sweep_reports(model, settings().report_days)


@task
def forget_windows() -> int:
    """Delete windows, slices and alarms that are older than the setting; the number of rows."""
    return retention.forget_windows(settings().history_days)


def _drift(probe: Probe, champion: registry.Version, window: Window) -> dict[str, float]:
    """Evidently's PSI of each monitored column against the hold-out; its report goes to MLflow."""
    monitored = probe.model_type.monitored
    now = monitored(window.sample.lazy(), probe.profile).collect()
    then = monitored(probe.holdout.lazy(), probe.profile).collect()
    with tempfile.TemporaryDirectory() as folder:
        moved = drift.compare(now, then, Path(folder) / retention.report_name(window.end))
        registry.attach(champion, retention.REPORTS, moved.report)
    return moved.values
