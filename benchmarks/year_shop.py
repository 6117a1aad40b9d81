"""A shop in operation, for `year.py`: what its loads, looks, trainings and tidyings leave."""

import io
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import polars as pl

from demo import raw_files
from demo.shop import Plan, simulate
from kreislauf import lake, registry
from kreislauf.clock import DAY_MS
from kreislauf.evaluation import scoring
from kreislauf.evaluation.decision import DECISIONS, Decision
from kreislauf.evaluation.intervals import interval
from kreislauf.lake import delta, loading
from kreislauf.monitoring import (
    alarms,
    cadence,
    calibration,
    inputs,
    measurement,
    policy,
    recording,
    retention,
    tables,
)
from kreislauf.monitoring.diagnosis import diagnose
from kreislauf.monitoring.finding import Finding
from kreislauf.monitoring.measurement import Measurement
from kreislauf.pages import life, lifecycle
from kreislauf.pages import monitor as pages
from kreislauf.pages.links import Links
from kreislauf.registry import claims
from kreislauf.release import lifecycle_page, releases
from kreislauf.settings import settings
from models.session_recommender import SPEC, Params
from models.spec import MAX_BATCH, Parity, TrainingResult
from models.table import RawLines
from tasks.lake import tidy_journal, tidy_table
from tasks.monitor import PLOTTED_DAYS, add_remarks, measure, measure_tails
from tasks.promote import note_decision

MODEL = SPEC.name
SESSIONS = 120
"""Sessions of a day."""
BEFORE = 10
"""Weeks of sessions before the first look."""
LEARNT = 8
"""Weeks that a version learns from."""
ALARMED = 30
"""Looks of which one raises an alarm."""
WEEK_MS = 7 * DAY_MS
JOURNALS = (tables.WINDOWS, tables.SLICES, tables.ALARMS, DECISIONS)


@dataclass
class Hour:
    """Sessions of an hour, as a raw file that is not on a disk."""

    path: str
    sessions: pl.DataFrame
    mapping: None = None

    def __post_init__(self) -> None:
        buffer = io.BytesIO()
        raw_files.sessions(self.sessions).write_ndjson(buffer)
        self.lines = buffer.getvalue()
        self.sha256 = sha256(self.lines).hexdigest()
        self.stamp = f"{self.path}|{self.sha256}"

    def chunks(self) -> Iterator[RawLines]:
        """The lines, at once."""
        yield RawLines.cut(self.path, self.lines, 1)


class ShopYear:
    """A shop, and what its loop leaves below `home`."""

    def __init__(self, home: Path, looks: int, weeks: int) -> None:
        self.home = home
        self.looks = looks
        plan = Plan((BEFORE + weeks) * 7, SESSIONS, 400, change_day=10**6)
        rows = simulate(plan)
        first = int(rows["ts"].min())  # type: ignore[arg-type]
        began = pl.col("ts").min().over("session") - first
        of_look = (began - BEFORE * WEEK_MS) * looks // WEEK_MS
        self.rows = rows.with_columns(look=pl.max_horizontal(of_look, -1)).partition_by(
            "look", as_dict=True, include_key=False
        )
        self.load(-1)
        self.version = self.train()
        self.template: Measurement | None = None
        self.report = b""

    def load(self, look: int) -> None:
        """Load the sessions of the time before a look."""
        if (look,) in self.rows:
            loading.load_file(SPEC.table, Hour(f"{look}.jsonl", self.rows[look,]))

    def train(self) -> registry.Version:
        """Register and release a version whose hold-out is the week before the newest."""
        newest = (lake.watermark(SPEC.table) or 0) - WEEK_MS
        holdout = newest + 1 - WEEK_MS
        rows = inputs.trusted_rows(SPEC)
        learnt = rows.between(holdout - LEARNT * WEEK_MS, holdout - 1).collect()
        held = rows.between(holdout, newest).collect().sort(SPEC.table.order)
        with tempfile.TemporaryDirectory() as work:
            folder = Path(work)
            onnx = SPEC.baseline(learnt, folder)
            SPEC.training_profile(learnt.lazy()).collect().write_parquet(folder / "profile")
            held.write_parquet(folder / "holdout")
            lineage = registry.Lineage(
                key=str(newest),
                table=SPEC.table.name,
                table_version=lake.version(SPEC.table),
                start=int(learnt["ts"].min()),  # type: ignore[arg-type]
                holdout=holdout,
                watermark=newest,
                digest="0" * 64,
            )
            parity = Parity(
                inputs=1, largest_batch=MAX_BATCH, min_overlap=1, max_difference=0, passed=True
            )
            files = {"baseline": onnx, "training_profile": folder / "profile"}
            files["holdout"] = folder / "holdout"
            trained = TrainingResult(onnx, onnx, parity, 0.5, {})
            with claims.held(MODEL, lineage) as claim:
                version = registry.register(claim, trained, Params(), files)
            examples = SPEC.examples(held)
            scores = SPEC.score(examples, scoring.answer(onnx, examples.inputs))
        reference = interval(scores, examples.groups, SPEC.policy.confidence)
        decision = Decision(outcome="promote", reasons=[], metric=SPEC.metric, reference=reference)
        version = registry.record_decision(version, decision)
        note_decision(version, decision)
        registry.close(version)
        after = releases.current(MODEL)
        releases.append(MODEL, version.number, "weekly", "benchmark", after, watermark=newest)
        alarms.resolve(MODEL, newest, f"Version {version.number} was trained: promote.")
        return version

    def calibrate(self) -> None:
        """Measure for real, which calibrates the newest version."""
        measured = self.measure()
        assert not measured.shortage, measured.shortage
        self.template = measured
        self.report = next(self.home.rglob("drift-*.html")).read_bytes()

    def calibrate_as_before(self) -> None:
        """Note the calibration windows of the first version for the newest."""
        assert self.template is not None
        names = self.template.signals
        count = min(len(signal.history) for signal in names.values() if signal.history)
        learnt = [
            (n, n + 1, {name: s.history[n] for name, s in names.items() if s.history})
            for n in range(count)
        ]
        calibration.record(MODEL, self.version.number, WEEK_MS, learnt)

    def look(self, number: int, whole: bool) -> None:
        """Load the hour and leave what a look leaves; a `whole` one reads what it must, too."""
        self.load(number)
        step = self.measured_before
        if whole:
            step = self.measure
        measured = step()
        signals = measurement.compare(measured)
        diagnosis = diagnose(measured, signals, SPEC.policy.decay)
        verdict = "stable"
        if number % ALARMED == 0:
            verdict = "covariate shift"
        finding = Finding.of(measured, signals, diagnosis).model_copy(update={"verdict": verdict})
        recording.record_window(finding, measured)
        standing = policy.Standing()
        if whole:
            standing = policy.standing(finding.model_copy(update={"verdict": "data fault"}))
        options = policy.Settings(min_gain=SPEC.policy.decay)
        action = policy.decide(finding, standing, options)
        if whole:
            since = measured.end - PLOTTED_DAYS * DAY_MS
            windows = tables.read(tables.WINDOWS, pl.col("end") > since, model=MODEL)
            page = pages.page(finding, measured, action, windows)
            (self.home / "page.md").write_text(page, encoding="utf-8")
            recording.write_status(finding, action.wait)
            lifecycle_page.write(MODEL, lifecycle.draw(life.read(SPEC), Links()))
        recording.carry_out(finding, action, SPEC.table.name)

    def measure(self) -> Measurement:
        """The measurement of the newest window, as the flow does it."""
        head = measure_tails.fn(MODEL, self.version.number, 7.0)
        return measure.fn(add_remarks.fn(head, 7.0))

    def measured_before(self) -> Measurement:
        """The template, moved to the newest window, with its page of Evidently."""
        assert self.template is not None
        end = cadence.window_end(lake.watermark(SPEC.table) or 0, WEEK_MS)
        start = max(end - WEEK_MS, self.version.lineage.watermark) + 1
        self.attach(end)
        place = {"start": start, "end": end, "version": self.version.number}
        return self.template.model_copy(update=place)

    def attach(self, end: int) -> None:
        """Attach a page of Evidently about the window that ends at `end` (ms)."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / retention.report_name(end)
            path.write_bytes(self.report)
            registry.attach(self.version, retention.REPORTS, path)

    def tidy(self, days: int) -> None:
        """The steps of the flow `tidy`, once all files are `days` older."""
        log = self.home / "lake" / SPEC.table.name / "_delta_log"
        for path in (self.home / "lake").rglob("*"):
            if path.is_file() and path.parent != log:
                changed = path.stat().st_mtime - days * 86_400
                os.utime(path, (changed, changed))
        retention.forget_windows(settings().history_days)
        needed = [lineage.table_version for lineage in registry.lineages()]
        tidy_table.fn(SPEC.table.name, 168, needed)
        for name in JOURNALS:
            if delta.find(name):
                tidy_journal.fn(name, 168)
        retention.sweep_reports(MODEL, settings().report_days)
