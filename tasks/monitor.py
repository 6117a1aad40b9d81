"""Tasks of monitor: measure the newest window of a version, and record what was found there."""

import tempfile
from pathlib import Path

import numpy as np
import polars as pl
from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.runtime import flow_run

from kreislauf import lake, registry
from kreislauf.clock import DAY_MS
from kreislauf.evaluation.intervals import Interval
from kreislauf.lake import clocks, exclusions
from kreislauf.monitoring import (
    cadence,
    calibration,
    drift,
    feedback,
    first_version,
    inputs,
    limits,
    measurement,
    recording,
    remarks,
    retention,
    stops,
    tables,
)
from kreislauf.monitoring.agreement import Agreement, agreement, first_excluded
from kreislauf.monitoring.finding import Finding
from kreislauf.monitoring.measurement import Measurement
from kreislauf.monitoring.policy import Action
from kreislauf.monitoring.probe import Probe, gain_of_keeping
from kreislauf.monitoring.tail_probe import TailProbe
from kreislauf.monitoring.tails import FRACTIONS
from kreislauf.monitoring.window import Window, read_window
from kreislauf.pages import monitor as pages
from kreislauf.settings import settings
from models import spec

PLOTTED_DAYS = 28
"""Days of windows that the page shows."""


@task(task_run_name="measure-tails-{model}-{version}")
def measure_tails(
    model: str, version: int, window_days: float, until: int | None = None
) -> Measurement:
    """Measure one version over the newest hours, and say which window has to be measured: at most
    back to the version's own hold-out. With `until` (ms since 1970 UTC), rows after it do not
    count.

    Raises RuntimeError when no gate ever scored the version, LakeError, RegistryError.
    """
    model_type = spec.load(model)
    champion = registry.get(model, version)
    since = champion.lineage.watermark + 1
    # Before the rows are taken: there are none after it.
    watermark = lake.watermark(model_type.table) or 0
    if until is not None:
        watermark = min(watermark, until)
    length = int(window_days * DAY_MS)
    rows = inputs.trusted_rows(model_type)
    probe = inputs.registered_probe(model_type, champion)
    tail_probe = TailProbe(probe)
    histories = calibration.recorded_tails(model, version, length)
    with lake.reading(model_type.table):
        if not histories:
            histories = tail_probe.histories(rows, champion.lineage.holdout - 1, length)
            calibration.record_tails(model, version, length, histories)
        start = max(watermark + 1 - length // min(FRACTIONS), since)
        newest = read_window(model_type, rows, probe.profile, start, watermark)
        tails = tail_probe.tails(newest.sample, watermark, length, histories)
    holdout = int(probe.holdout[model_type.table.time].min())  # type: ignore[arg-type]
    stretches = exclusions.trusted(model_type.table.name, holdout)
    trusted = any(first <= watermark <= last for first, last in stretches)
    head = measurement.begin(model, version, probe, rows, tails, (start, watermark), trusted)
    if head.newest_fault:
        return head
    end = cadence.window_end(watermark, length)
    start = max(end - length + 1, since)
    return head.model_copy(update={"start": start, "end": end})


@task(task_run_name="look-around-{head.model}-{head.version}")
def add_remarks(head: Measurement, window_days: float, until: int | None = None) -> Measurement:
    """The measurement with what somebody should look at: sources that have stopped, the newest
    days, and what the gateway noted of its answers. What ended long ago, `until` (ms), has none."""
    if until is not None:
        return head
    model_type = spec.load(head.model)
    watermark = lake.watermark(model_type.table)
    sources = clocks.sources(model_type.table.name)
    sentences = stops.sentences(sources)
    sentences += remarks.of_newest(model_type, window_days, watermark)
    sentences += remarks.of_feedback(head.model, watermark or 0)
    for sentence in sentences:
        get_run_logger().warning(sentence)
    return head.model_copy(update={"remarks": sentences, "sources": sources})


@task(task_run_name="measure-{head.model}-{head.version}")
def measure(head: Measurement) -> Measurement:
    """Measure the window of `measure_tails`.

    The version's history is measured, too, in the first window after its hold-out.
    """
    model_type = spec.load(head.model)
    champion = registry.get(head.model, head.version)
    lineage = champion.lineage
    start = head.start
    end = head.end
    place = (head.model, head.version)
    rows = inputs.trusted_rows(model_type, head.table_version, head.excluded)
    registered = inputs.registered_probe(model_type, champion)
    with tempfile.TemporaryDirectory() as folder, lake.reading(model_type.table):
        probe = inputs.comparable(registered, champion, rows, Path(folder))
        window = read_window(model_type, rows, probe.profile, start, end)
        head = measurement.of_window(head, model_type, window)
        if head.shortage:
            return head
        history = calibration.recorded_history(*place, start, end)
        if calibration.SAMPLE_SIZE not in history:
            learnt = (lineage.start, lineage.holdout - 1)
            calibrated = []
            for earlier, profile, usual_rows in calibration.calibration_windows(
                model_type, rows, *learnt, end - start + 1
            ):
                numbers = probe.signals(earlier, profile, usual_rows)
                numbers[calibration.SAMPLE_SIZE] = float(earlier.sample.height)
                calibrated.append((earlier.start, earlier.end, numbers))
            calibration.record(*place, end - start + 1, calibrated)
            history = calibration.recorded_history(*place, start, end)
        heights = history.get(calibration.SAMPLE_SIZE, [])
        if len(heights) < limits.MIN_WINDOWS:
            return head.model_copy(update={"shortage": measurement.short_history(head.version)})
        before = calibration.newest_rows(model_type, rows, lineage.start, start - 1)
        quality = probe.quality(window, before)
        first = first_version.quality(probe, window, head.version, quality)
        values = probe.signals(window, probe.profile, float(np.median(heights)))
        if any(source.is_late for source in stops.recent(head.sources)):
            values.pop("volume", None)  # A source that has stopped is why groups are fewer.
        measured = {
            "signals": measurement.with_history(values, history),
            "quality": measurement.window_quality(probe, window, quality, first),
            "newest_gain": measurement.newest_gain(probe, window, head.tails, before),
            "slices": probe.slices(window, quality),
            "drift": _drift(probe, champion, window),
        }
    return head.model_copy(update=measured)


@task(task_run_name="measure-reactions-{head.model}-{head.version}")
def measure_reactions(head: Measurement, until: int | None = None) -> Measurement:
    """The measurement with what people did with the answers, and what was rejected; of the past,
    `until` a time (ms), nobody knows which loads there were then."""
    if head.quality is None:
        return head
    champion = registry.get(head.model, head.version)
    table = spec.load(head.model).table
    reactions = feedback.reactions(head.model, head.start, head.end)
    more = {}
    if until is None:
        shares = lake.rejected_shares(table, champion.lineage.table_version)
        more = inputs.rejected_share(champion, shares)
    more |= feedback.clicks_per_answer(reactions, head.version, head.start)
    clicks = feedback.clicks_by_variant(reactions, head.start)
    return head.model_copy(update={"signals": head.signals | more, "clicks": clicks})


@task(task_run_name="measure-agreement-{measurement.model}-{measurement.version}")
def measure_agreement(measurement: Measurement, fault: tuple[int, int] | None) -> Agreement | None:
    """Whether the days since the `fault` (ms, inclusive) began agree with each other; None without
    a fault."""
    if fault is None:
        return None
    model_type = spec.load(measurement.model)
    champion = registry.get(measurement.model, measurement.version)
    since = first_excluded(measurement.excluded, fault)
    everything = inputs.trusted_rows(model_type, measurement.table_version, [])
    probe = inputs.registered_probe(model_type, champion)
    with lake.reading(model_type.table):
        window = read_window(model_type, everything, probe.profile, since, fault[1])
    return agreement(TailProbe(probe), window.sample, since, fault[1])


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
def record(finding: Finding, measurement: Measurement, action: Action | None) -> None:
    """Store the window, show the page, write the status, and do what follows; of a window of the
    past, without an `action`, store the window alone."""
    finding = finding.model_copy(update={"flow_run": flow_run.get_id() or ""})
    recording.record_window(finding, measurement)
    if action is None:
        return
    if finding.verdict != "not enough data" or finding.remarks:
        since = finding.end - PLOTTED_DAYS * DAY_MS
        windows = tables.read(tables.WINDOWS, pl.col("end") > since, model=finding.model)
        text = pages.page(finding, measurement, action, windows)
        key = f"monitor-{finding.model.replace('_', '-')}"
        create_markdown_artifact(
            key=key, markdown=text, description="What the monitor saw, and what follows"
        )
    recording.write_status(finding, action.wait)
    table = spec.load(finding.model).table.name
    recording.carry_out(finding, action, table)
    stops.record(finding, measurement.sources, table)


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
