"""Watch the live model: has the world changed, or is the data broken? If so, say so with an event."""

import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from pydantic import BaseModel, ConfigDict, Field

from models import spec
from tasks import card, drift, events, exposures, gate, lake, registry, releases, split, vitals
from tasks.drift import calibration, losses, pictures, window
from tasks.drift.diagnosis import Verdict
from tasks.drift.limits import LEAST, Signal
from tasks.drift.view import LOSS, Examined, View
from tasks.drift.window import Rows, Window
from tasks.intervals import Interval

WINDOWS, SLICES = "windows", "slices"
"""The lake's tables with each signal of each window, and with the live quality in each slice of each window."""


ASKED = "A retraining is asked for."
LOOK = "Somebody should look at it; trainings still learn from it."
COST = 0.25
"""See `monitor`; benchmarks/frequency.py has what others come to."""
REJECTED_LEAST = 0.001
"""Of the lines: fewer rejects are nothing."""


class Finding(BaseModel):
    """What the newest window says about the champion."""

    model_config = ConfigDict(frozen=True)

    model: str
    version: int
    start: int = Field(description="Of the window, ms since 1970 UTC.")
    end: int = Field(description="The same; inclusive.")
    groups: int = Field(description="In the window.")
    verdict: Verdict
    reason: str = Field(description="The evidence, in sentences.")
    faulty: tuple[int, int] | None = Field(None, description="What is not to be learnt from: from when to when.")
    signals: list[Signal] = []
    realised: Interval | None = Field(None, description="Metric of the live version in the window.")
    reference: Interval | None = Field(None, description="Its metric on its own hold-out.")
    gain: Interval | None = Field(None, description="Of a trivial baseline, by learning anew.")
    loss: float = Field(0.0, description="Of the metric, beside what a new version would reach.")
    action: str = Field("", description="What followed, in a sentence.")


@flow
def monitor(
    model: str = "session_recommender",
    window_days: float = 7.0,
    needed: int = 1,
    of: int = 1,
    worth: float | None = None,
    cost: float = COST,
) -> Finding:
    """Diagnose the newest window, note it, and act: ask for a retraining, or shut out broken data.

    Args:
        model: Name of the model type.
        window_days: Length of the window before the data's watermark, at most back to the champion's own hold-out.
        needed: So many of the newest `of` windows that do not overlap must say that the world has changed before a
            retraining is asked for.
        of: See `needed`.
        worth: Smallest gain of the metric that is worth a training; by default the policy's `decay`.
        cost: What a training costs, as points of the metric times days: a retraining is asked for when so much has
            been lost since the last one (0.25 is 0.025 for ten days). To pay when one has lost as much is at most twice
            as dear as to know the future: Karlin, Manasse, Rudolph and Sleator, "Competitive snoopy caching", 1988.

    Returns:
        What was found. Evidently's report is an artifact of the champion's MLflow run and, in short, of this run.

    Raises:
        RuntimeError: nothing is live yet.
        ValueError: `needed` is not from 1 to `of`.
        registry.RegistryError: the champion was registered by an earlier Kreislauf, or MLflow does not answer.
    """
    if not 1 <= needed <= of:
        raise ValueError(f"needed is {needed} and of is {of}: ask for 1 to {of} of the newest {of} windows.")
    live = releases.current(model)
    if live is None:
        raise RuntimeError(f"Nothing of {model} is live, so nothing can be watched: run retrain first.")
    finding = look(model, live.champion, window_days, worth)
    tell(finding)
    action = act(finding, needed, of, cost)
    get_run_logger().info(f"{finding.verdict.capitalize()}: {finding.reason} {action}")
    return finding.model_copy(update={"action": action})


@task(task_run_name="look-at-{model}-{version}")
def look(model: str, version: int, window_days: float, worth: float | None) -> Finding:
    """Measure and diagnose one version over the newest window."""
    kind, champion = spec.load(model), registry.get(model, version)
    end = lake.watermark(kind.table) or 0  # before the rows are taken: there are none after it
    rows = table_rows(kind)
    with tempfile.TemporaryDirectory() as folder:
        view = view_of(kind, champion, rows, Path(folder))
        return diagnosed(view, champion, rows, end, window_days, kind.policy.decay if worth is None else worth)


def diagnosed(
    view: View, champion: registry.Version, rows: Rows, end: int, window_days: float, worth: float
) -> Finding:
    """What the window that ends at `end` (ms) says, noted and reported."""
    kind, lineage, version = view.kind, champion.lineage, champion.number
    start = max(end - int(window_days * split.DAY_MS), lineage.watermark) + 1
    with lake.reading(kind.table):
        seen = window.look(kind, rows, view.known, start, end)
    began = seen.sample[kind.table.group].n_unique()
    facts: dict = {"model": champion.model, "version": version, "start": start, "end": end, "groups": seen.groups}
    if began < kind.policy.min_groups or not len(kind.examples(seen.sample)):
        reason = f"{began} groups since version {version} was judged; the policy wants {kind.policy.min_groups}, "
        reason += "and some with a right answer."
        return Finding(verdict="not enough data", reason=reason, **facts)
    with lake.reading(kind.table):
        past = calibrated(view, champion, rows, start, end)
        before = calibration.newest(kind, rows, lineage.start, start - 1)
        reactions = reacted(champion.model, start, end)
    if len(past["rows"]) < LEAST:
        reason = f"There is too little before version {version}'s hold-out to learn from it what is usual."
        return Finding(verdict="not enough data", reason=reason, reference=view.reference, **facts)
    for name, (value, usual) in (rejected(champion) | exposures.clicks(reactions, version, start)).items():
        seen.values[name], past[name] = value, usual
    examined = view.examine(seen, before, past, worth)
    finding = Finding(
        verdict=examined.diagnosis.verdict, reason=" ".join(examined.diagnosis.evidence), signals=examined.signals,
        realised=examined.realised, reference=view.reference, gain=examined.gain, **facts,
        faulty=examined.faulty, loss=examined.values[LOSS],
    )  # fmt: skip
    note(finding, examined)
    report(view, champion, finding, seen, examined.slices, reactions)
    return finding


def tell(finding: Finding) -> None:
    """Leave the finding where the gateway shows it to Prometheus."""
    signals = {s.name: vitals.Vital(value=s.value, usual=s.usual, limit=s.limit) for s in finding.signals}
    about = finding.model_dump(include={"model", "version", "end", "verdict"})
    vitals.write(vitals.Vitals(**about, at=int(time.time() * 1000), signals=signals))


def table_rows(kind: spec.ModelSpec) -> Rows:
    """The rows of the lake, as it is now, that can be trusted."""
    table = kind.table
    without, heights, version = lake.distrusted(table.name), lake.heights(table), lake.version(table)

    def between(first: int | None, last: int) -> pl.LazyFrame:
        return lake.scan(table, version, start=first, end=last + 1, without=without)

    def count(first: int | None, last: int) -> int:
        dates = heights.filter(pl.col("date") <= lake.date_of(pl.lit(last)))
        dates = dates if first is None else dates.filter(pl.col("date") >= lake.date_of(pl.lit(first)))
        return int(dates["rows"].sum())

    return Rows(between, count, without)


def view_of(kind: spec.ModelSpec, champion: registry.Version, rows: Rows, folder: Path) -> View:
    """The champion with what is kept beside it. Raises RuntimeError when no gate ever scored it."""
    decision = gate.Decision.model_validate_json(champion.decision) if champion.decision else None
    if decision is None or decision.reference is None:
        name = f"{champion.model} version {champion.number}"
        raise RuntimeError(f"{name} is live, but no gate ever scored it, so there is no reference: run promote for it.")
    onnx, *tables = (registry.onnx_file(champion), *(registry.artifact(champion, n) for n in ("known", "holdout")))
    known, holdout = (pl.read_parquet(path) for path in tables)
    learnt, baseline = (champion.lineage.start, champion.lineage.holdout - 1), registry.artifact(champion, "baseline")
    if rows.count(*learnt) > calibration.LEARN_ROWS:
        # Beside one that learns anew from the newest rows only, that which learnt from all of them would look too good.
        with lake.reading(kind.table):
            newest = calibration.newest(kind, rows, *learnt)
        baseline = kind.baseline(newest, folder)
    return View(kind, onnx, baseline, known, holdout, decision.reference)


def rejected(champion: registry.Version) -> dict[str, tuple[float, list[float]]]:
    """The share of the lines that were rejected since the champion was trained, and in each load before."""
    shares = lake.rejected_shares(spec.load(champion.model).table)
    after = pl.col("version") > champion.lineage.table_version
    now = shares.filter(after).select((pl.col("share") * pl.col("lines")).sum() / pl.col("lines").sum()).item()
    usual = shares.filter(~after)["share"].clip(REJECTED_LEAST).to_list()
    return {} if now is None else {"rejected": (max(now, REJECTED_LEAST), usual)}


def reacted(model: str, start: int, end: int) -> pl.DataFrame:
    """What people did with answers of the model, of `exposures.joined`, until `end` (ms) and in the days before `start`
    from which it is learnt what is usual; empty if the gateway has told nothing."""
    shown, done = exposures.EXPOSURES, exposures.FEEDBACK
    until = min((w for w in (lake.watermark(shown), lake.watermark(done)) if w is not None), default=None)
    if lake.watermark(done) is None or until is None:
        return pl.DataFrame()
    first, last = start - exposures.USUAL_DAYS * split.DAY_MS, min(end, until - exposures.MATURITY_MS)
    with lake.reading(shown):
        rows = lake.scan(shown, start=first, end=last + 1).filter(pl.col("model") == model)
        return exposures.joined(rows, lake.scan(done, start=first).filter(pl.col("model") == model))


def calibrated(view: View, champion: registry.Version, rows: Rows, start: int, end: int) -> dict:
    """Each signal, and `rows`, in windows about as long as from `start` to `end` in which nothing was wrong: before
    the champion's hold-out, measured once for each champion, and after it, as this flow has noted them."""
    lineage, about = champion.lineage, (champion.model, champion.number)
    length = end - start + 1
    if calibration.quiet(lake.noted(WINDOWS), *about, start, end).is_empty():
        cells = calibration.usual_windows(view, rows, lineage.start, lineage.holdout - 1, length)
        frames = [calibration.as_rows(*about, cell.start, cell.end, length, "calibration", v) for cell, v in cells]
        if frames:
            lake.note(WINDOWS, "/".join(map(str, (*about, calibration.octave(length)))), pl.concat(frames))
    noted = calibration.quiet(lake.noted(WINDOWS), *about, start, end)
    found = {} if noted.is_empty() else {str(n[0]): part["value"].to_list() for n, part in noted.group_by("signal")}
    return {"rows": [], **found}


def note(finding: Finding, examined: Examined) -> None:
    """Put the window into the lake: its signals, and the live quality in its slices."""
    start, end = finding.start, finding.end
    key = f"{finding.model}/{finding.version}/{start}/{end}"
    told = (finding.model, finding.version, start, end, end - start + 1, finding.verdict, examined.values)
    lake.note(WINDOWS, key, calibration.as_rows(*told))
    if examined.slices.height:
        about = {"model": finding.model, "version": finding.version, "start": start, "end": end}
        lake.note(SLICES, key, examined.slices.with_columns(**{name: pl.lit(value) for name, value in about.items()}))


def act(finding: Finding, needed: int, of: int, cost: float) -> str:
    """Do what the verdict asks for, note the alarm and what became of it, and say so."""
    if finding.verdict in ("quiet", "not enough data"):
        return ""
    action, table = "Nothing to do but to watch.", spec.load(finding.model).table.name
    about = {"version": finding.version, "groups": finding.groups}
    if finding.verdict == "data broken":
        start, end = finding.faulty or (finding.start, finding.end)
        action = LOOK if not told_before(finding) else "An overlapping window has said so."
        if finding.faulty:
            lake.distrust(table, start, end, finding.reason)
            action = f"No training will learn from {when(start)} to {when(end)}; the rows stay in the table."
        if finding.faulty or action == LOOK:
            told: dict = {"model": finding.model, "start": start, "end": end, "left_out": bool(finding.faulty)}
            events.emit_table_event(events.DATA_BROKEN, table, finding.reason, **told)
    elif finding.verdict == "world changed":
        trained = registry.finished(finding.model)
        since = trained.lineage.watermark if trained else 0
        newest = finding.start, finding.end, finding.verdict, finding.loss
        seen = losses.apart(lake.noted(WINDOWS), finding.model, finding.version, since, newest)
        if (count := (seen["verdict"] == "world changed").head(of).sum()) < needed:
            action = f"{count} of the newest {of} windows say so; {needed} are needed for a retraining."
        elif (gone := losses.lost(seen, since)) < cost:
            action = f"{gone:.3f} of {cost:g} (metric times days) is lost that a training costs."
        else:
            action = ASKED
            live = next((s for s in finding.signals if s.name == spec.load(finding.model).metric), None)
            event = events.DECAY_DETECTED if live and live.off < -1 else events.DRIFT_DETECTED
            events.emit_model_event(event, finding.model, finding.reason, **about)
    row = finding.model_dump(include={"model", "version", "start", "end", "groups", "verdict", "reason"})
    lake.alarm(row, action, asks=action == ASKED)
    return action


def told_before(finding: Finding) -> bool:
    """Whether somebody was asked to look at a window that overlaps with this one."""
    found = lake.noted(lake.ALARMS)
    asked = {"model": finding.model, "action": LOOK}
    return found.height > 0 and found.filter(pl.col("end") >= finding.start, **asked).height > 0


def when(time: int) -> str:
    """ms since 1970 as a date and time, UTC."""
    return f"{datetime.fromtimestamp(time / 1000, UTC):%Y-%m-%d %H:%M}"


def report(
    view: View,
    champion: registry.Version,
    finding: Finding,
    seen: Window,
    slices: pl.DataFrame,
    reactions: pl.DataFrame,
) -> None:
    """For people: Evidently's view of the window against the hold-out to MLflow, and a page to Prefect."""
    now, then = (view.kind.monitored(rows.lazy(), view.known).collect() for rows in (seen.sample, view.holdout))
    with tempfile.TemporaryDirectory() as folder:
        moved = drift.compare(now, then, Path(folder) / f"drift-{seen.end}.html")
        registry.attach(champion, "monitor", moved.report)
    past = lake.noted(WINDOWS).filter(pl.col("model") == finding.model)
    text = page(view.kind, finding, moved, slices, past, reactions)
    create_markdown_artifact(key=f"monitor-{finding.model.replace('_', '-')}", markdown=text)


def page(
    kind: spec.ModelSpec,
    finding: Finding,
    moved: drift.Drift,
    slices: pl.DataFrame,
    past: pl.DataFrame,
    reactions: pl.DataFrame,
) -> str:
    """The finding as Markdown; `past` are the noted windows of the model type."""
    did = card.table(
        ["version", "variant", "answers", "clicks per answer"],
        exposures.by_variant(reactions.filter(pl.col("ts") >= finding.start)) if reactions.height else [],
    )
    told = card.table(
        ["signal", "now", "usually", "limit", "windows", ""],
        [
            (s.name, f"{s.value:.4g}", f"{s.usual:.4g}", f"{s.limit:.2g}", s.windows, "alarm" if s.alarm else "")
            for s in finding.signals
        ],
    )
    psi = card.table(["column", "PSI"], [(name, f"{value:.3f}") for name, value in moved.values.items()])
    by = card.table(
        ["slice", "", "groups", f"{kind.metric} now", "when it was judged", "trivial baseline now"],
        [
            (r["slice"], r["value"], r["groups"], f"{r['live']:.4f} [{r['low']:.4f}, {r['high']:.4f}]",
             "" if r["reference"] is None else f"{r['reference']:.4f}", f"{r['baseline']:.4f}")
            for r in slices.iter_rows(named=True)
        ],
    )  # fmt: skip
    return "\n\n".join(
        [
            f"# {finding.model} version {finding.version}: {finding.verdict}",
            finding.reason,
            f"{kind.metric}: {finding.realised} now, {finding.reference} when it was judged, {finding.groups} groups. "
            f"A trivial baseline gains {finding.gain} by learning anew.",
            f"![signals]({pictures.signals(finding.signals)})",
            f"## Signals\n\n{told}",
            f"![history]({pictures.history(past, kind.metric)})",
            f"## {kind.metric} by slice\n\n{by}" if by else "",
            f"## What people did with the answers\n\n{did}" if did else "",
            f"## Evidently\n\n{psi}\n\nIts report: MLflow, run of version {finding.version}, folder `monitor`.",
        ]
    )
