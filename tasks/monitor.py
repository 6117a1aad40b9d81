"""Tasks of monitor"""

import tempfile
from pathlib import Path

import polars as pl
from prefect import task
from prefect.artifacts import create_markdown_artifact

from kreislauf import exposures, lake, registry
from kreislauf.clock import DAY_MS
from kreislauf.evaluation import gate
from kreislauf.lake import exclusions, journal
from kreislauf.monitoring import calibration, drift, feedback, window
from kreislauf.monitoring.finding import SLICES, WINDOWS, Finding
from kreislauf.monitoring.limits import LEAST
from kreislauf.monitoring.probe import LOSS, Examined, View
from kreislauf.monitoring.window import Rows, Window
from kreislauf.pages.monitor import page
from models import spec

REJECTED_LEAST = 0.001
"""Of the lines: fewer rejects are nothing."""


@task(task_run_name="look-at-{model}-{version}")
def look(model: str, version: int, window_days: float, worth: float | None) -> Finding:
    """Measure and diagnose one version over the newest window."""
    model_type = spec.load(model)
    champion = registry.get(model, version)
    end = (
        lake.watermark(model_type.table) or 0
    )  # before the rows are taken: there are none after it
    rows = table_rows(model_type)
    with tempfile.TemporaryDirectory() as folder:
        view = view_of(model_type, champion, rows, Path(folder))
        return diagnosed(
            view,
            champion,
            rows,
            end,
            window_days,
            model_type.policy.decay if worth is None else worth,
        )


def diagnosed(
    view: View, champion: registry.Version, rows: Rows, end: int, window_days: float, worth: float
) -> Finding:
    """What the window that ends at `end` (ms) says, noted and reported."""
    model_type = view.model_type
    lineage = champion.lineage
    version = champion.number
    start = max(end - int(window_days * DAY_MS), lineage.watermark) + 1
    with lake.reading(model_type.table):
        seen = window.look(model_type, rows, view.known, start, end)
    began = seen.sample[model_type.table.group].n_unique()
    facts: dict = {
        "model": champion.model,
        "version": version,
        "start": start,
        "end": end,
        "groups": seen.groups,
    }
    if began < model_type.policy.min_groups or not len(model_type.examples(seen.sample)):
        reason = f"{began} groups since version {version} was judged; the policy wants {model_type.policy.min_groups}, "
        reason += "and some with a right answer."
        return Finding(verdict="not enough data", reason=reason, **facts)
    with lake.reading(model_type.table):
        past = calibrated(view, champion, rows, start, end)
        before = calibration.newest(model_type, rows, lineage.start, start - 1)
        reactions = reacted(champion.model, start, end)
    if len(past["rows"]) < LEAST:
        reason = f"There is too little before version {version}'s hold-out to learn from it what is usual."
        return Finding(verdict="not enough data", reason=reason, reference=view.reference, **facts)
    for name, (value, usual) in (
        rejected(champion) | feedback.clicks(reactions, version, start)
    ).items():
        seen.values[name] = value
        past[name] = usual
    examined = view.examine(seen, before, past, worth)
    finding = Finding(
        verdict=examined.diagnosis.verdict, reason=" ".join(examined.diagnosis.evidence), signals=examined.signals,
        realised=examined.realised, reference=view.reference, gain=examined.gain, **facts,
        faulty=examined.faulty, loss=examined.values[LOSS],
    )  # fmt: skip
    note(finding, examined)
    report(view, champion, finding, seen, examined.slices, reactions)
    return finding


def table_rows(model_type: spec.ModelSpec) -> Rows:
    """The rows of the lake, as it is now, that can be trusted."""
    table = model_type.table
    without = exclusions.intervals(table.name)
    heights = lake.heights(table)
    version = lake.version(table)

    def between(first: int | None, last: int) -> pl.LazyFrame:
        return lake.scan(table, version, start=first, end=last + 1, without=without)

    def count(first: int | None, last: int) -> int:
        dates = heights.filter(pl.col("date") <= lake.date_of(pl.lit(last)))
        dates = (
            dates if first is None else dates.filter(pl.col("date") >= lake.date_of(pl.lit(first)))
        )
        return int(dates["rows"].sum())

    return Rows(between, count, without)


def view_of(
    model_type: spec.ModelSpec, champion: registry.Version, rows: Rows, folder: Path
) -> View:
    """The champion with what is kept beside it. Raises RuntimeError when no gate ever scored it."""
    decision = gate.Decision.model_validate_json(champion.decision) if champion.decision else None
    if decision is None or decision.reference is None:
        name = f"{champion.model} version {champion.number}"
        raise RuntimeError(
            f"{name} is live, but no gate ever scored it, so there is no reference: run promote for it."
        )
    onnx, *tables = (
        registry.onnx_file(champion),
        *(registry.artifact(champion, n) for n in ("known", "holdout")),
    )
    known, holdout = (pl.read_parquet(path) for path in tables)
    learnt = (champion.lineage.start, champion.lineage.holdout - 1)
    baseline = registry.artifact(champion, "baseline")
    if rows.count(*learnt) > calibration.LEARN_ROWS:
        # Beside one that learns anew from the newest rows only, that which learnt from all of them
        # would look too good.
        with lake.reading(model_type.table):
            newest = calibration.newest(model_type, rows, *learnt)
        baseline = model_type.baseline(newest, folder)
    return View(model_type, onnx, baseline, known, holdout, decision.reference)


def rejected(champion: registry.Version) -> dict[str, tuple[float, list[float]]]:
    """The share of the lines that were rejected since the champion was trained, and in each load
    before."""
    shares = lake.rejected_shares(spec.load(champion.model).table)
    after = pl.col("version") > champion.lineage.table_version
    now = (
        shares.filter(after)
        .select((pl.col("share") * pl.col("lines")).sum() / pl.col("lines").sum())
        .item()
    )
    usual = shares.filter(~after)["share"].clip(REJECTED_LEAST).to_list()
    return {} if now is None else {"rejected": (max(now, REJECTED_LEAST), usual)}


def reacted(model: str, start: int, end: int) -> pl.DataFrame:
    """What people did with answers of the model, of `feedback.joined`, until `end` (ms) and in the
    days before `start` from which it is learnt what is usual; empty if the gateway has told
    nothing."""
    shown = exposures.EXPOSURES
    done = exposures.FEEDBACK
    until = min(
        (w for w in (lake.watermark(shown), lake.watermark(done)) if w is not None), default=None
    )
    if lake.watermark(done) is None or until is None:
        return pl.DataFrame()
    first = start - feedback.USUAL_DAYS * DAY_MS
    last = min(end, until - feedback.MATURITY_MS)
    with lake.reading(shown):
        rows = lake.scan(shown, start=first, end=last + 1).filter(pl.col("model") == model)
        return feedback.joined(rows, lake.scan(done, start=first).filter(pl.col("model") == model))


def calibrated(view: View, champion: registry.Version, rows: Rows, start: int, end: int) -> dict:
    """Each signal, and `rows`, in windows about as long as from `start` to `end` in which nothing
    was wrong: before the champion's hold-out, measured once for each champion, and after it, as
    this flow has noted them."""
    lineage = champion.lineage
    about = (champion.model, champion.number)
    length = end - start + 1
    if calibration.quiet(journal.read(WINDOWS), *about, start, end).is_empty():
        cells = calibration.usual_windows(view, rows, lineage.start, lineage.holdout - 1, length)
        frames = [
            calibration.as_rows(*about, cell.start, cell.end, length, "calibration", v)
            for cell, v in cells
        ]
        if frames:
            journal.append_once(
                WINDOWS, "/".join(map(str, (*about, calibration.octave(length)))), pl.concat(frames)
            )
    noted = calibration.quiet(journal.read(WINDOWS), *about, start, end)
    found = (
        {}
        if noted.is_empty()
        else {str(n[0]): part["value"].to_list() for n, part in noted.group_by("signal")}
    )
    return {"rows": [], **found}


def note(finding: Finding, examined: Examined) -> None:
    """Put the window into the lake: its signals, and the live quality in its slices."""
    start = finding.start
    end = finding.end
    key = f"{finding.model}/{finding.version}/{start}/{end}"
    told = (
        finding.model,
        finding.version,
        start,
        end,
        end - start + 1,
        finding.verdict,
        examined.values,
    )
    journal.append_once(WINDOWS, key, calibration.as_rows(*told))
    if examined.slices.height:
        about = {"model": finding.model, "version": finding.version, "start": start, "end": end}
        journal.append_once(
            SLICES,
            key,
            examined.slices.with_columns(**{name: pl.lit(value) for name, value in about.items()}),
        )


def report(
    view: View,
    champion: registry.Version,
    finding: Finding,
    seen: Window,
    slices: pl.DataFrame,
    reactions: pl.DataFrame,
) -> None:
    """For people: Evidently's view of the window against the hold-out to MLflow, and a page to
    Prefect."""
    now, then = (
        view.model_type.monitored(rows.lazy(), view.known).collect()
        for rows in (seen.sample, view.holdout)
    )
    with tempfile.TemporaryDirectory() as folder:
        moved = drift.compare(now, then, Path(folder) / f"drift-{seen.end}.html")
        registry.attach(champion, "monitor", moved.report)
    past = journal.read(WINDOWS).filter(pl.col("model") == finding.model)
    text = page(view.model_type, finding, moved, slices, past, reactions)
    create_markdown_artifact(key=f"monitor-{finding.model.replace('_', '-')}", markdown=text)
