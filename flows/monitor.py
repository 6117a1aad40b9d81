"""Watch the live model: has the world changed, or is the data broken? If so, say so with an event."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

import numpy as np
import polars as pl
from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from pydantic import BaseModel, ConfigDict, Field

from models import spec
from tasks import card, drift, events, gate, lake, registry, releases, scoring, split
from tasks.drift.diagnosis import Diagnosis, Quality, Verdict, diagnose
from tasks.drift.limits import LEAST, Signal, at_mix, shares, signals

MAX_ROWS = 100_000
"""Of a window, whole groups drawn at random, from which answers are scored and baselines learn."""
CELLS = 16
"""Windows before the champion's hold-out, at most, from which limits are learnt."""
PARTS = 8
"""Of a window, one after the other: a fault that began late is seen in the last of them."""
PART_GROUPS = 30
"""A part with fewer groups says nothing."""
LEARN_SHARE = 0.25
"""Of a usual window's rows: what a fresh baseline learns from, equally much in each window, small ones too."""
CONFIDENCE = 0.99
WINDOWS, ALARMS = "windows", "alarms"
"""The lake's tables with each signal of each window, and with each alarm and what became of it."""


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
    signals: list[Signal] = []
    realised: gate.Interval | None = Field(None, description="Metric of the live version in the window.")
    reference: gate.Interval | None = Field(None, description="Its metric on its own hold-out.")
    gain: gate.Interval | None = Field(None, description="Of a trivial baseline, by learning anew.")


@flow
def monitor(model: str = "session_recommender", window_days: float = 7.0, needed: int = 1, of: int = 1) -> Finding:
    """Diagnose the newest window, note it, and act: ask for a retraining, or shut out broken data.

    Args:
        model: Name of the model type.
        window_days: Length of the window before the data's watermark, at most back to the champion's own hold-out.
        needed: So many of the newest `of` windows must say that the world has changed before a retraining is asked for.
        of: See `needed`.

    Returns:
        What was found. Evidently's report is an artifact of the champion's MLflow run and, in short, of this run.

    Raises:
        RuntimeError: nothing is live yet.
        ValueError: `needed` is not from 1 to `of`.
    """
    if not 1 <= needed <= of:
        raise ValueError(f"needed is {needed} and of is {of}: ask for 1 to {of} of the newest {of} windows.")
    live = releases.current(model)
    if live is None:
        raise RuntimeError(f"Nothing of {model} is live, so nothing can be watched: run retrain first.")
    finding = look(model, live.champion, window_days)
    action = act(finding, needed, of)
    get_run_logger().info(f"{finding.verdict.capitalize()}: {finding.reason} {action}")
    return finding


@task(task_run_name="look-at-{model}-{version}")
def look(model: str, version: int, window_days: float) -> Finding:
    """Measure and diagnose one version over the newest window."""
    kind, champion = spec.load(model), registry.get(model, version)
    lineage, table = champion.lineage, kind.table
    rows = lake.read(table, without=lake.distrusted(table.name))
    end = int(rows[table.time].max())  # type: ignore[arg-type]
    start = max(end - int(window_days * split.DAY_MS), lineage.watermark) + 1
    window = split.started(rows, table, start, end)
    groups = window[table.group].n_unique()
    facts: dict = {"model": model, "version": version, "start": start, "end": end, "groups": groups}
    if groups < kind.policy.min_groups:
        reason = f"{groups} groups since version {version} was judged; the policy wants {kind.policy.min_groups}."
        return Finding(verdict="not enough data", reason=reason, **facts)
    reference = judged(champion)
    before, learnt = rows.filter(pl.col(table.time) < start), rows.filter(pl.col(table.time) < lineage.holdout)
    holdout = split.started(rows, table, lineage.holdout, lineage.watermark)
    view = View(kind, shares(kinds(kind, holdout, learnt)))
    past = calibrated(view, champion, learnt, start, end)
    if len(past["rows"]) < LEAST:
        reason = f"There is too little before version {version}'s hold-out to learn from it what is usual."
        return Finding(verdict="not enough data", reason=reason, reference=reference, **facts)
    files = registry.onnx_file(champion), registry.artifact(champion, "baseline")
    examined = view.examine(window, before, learnt, files, reference, past)
    said = examined.diagnosis
    finding = Finding(
        verdict=said.verdict, reason=" ".join(said.evidence), signals=examined.signals,
        realised=examined.realised, reference=reference, gain=examined.gain, **facts,
    )  # fmt: skip
    noted = as_rows(champion, start, end, end - start, said.verdict, examined.values)
    lake.note(WINDOWS, f"{model}/{version}/{start}/{end}", noted)
    moved = compare_data(kind, champion, window, holdout, learnt)
    create_markdown_artifact(key=f"monitor-{model.replace('_', '-')}", markdown=page(kind, finding, moved))
    return finding


@dataclass(frozen=True)
class Examined:
    """A window, looked at."""

    diagnosis: Diagnosis
    values: dict[str, float]
    """What `View.measure` found."""
    signals: list[Signal]
    realised: gate.Interval
    gain: gate.Interval


@dataclass(frozen=True)
class View:
    """How windows are looked at, so that they can be compared: at the mix of requests of the champion's hold-out."""

    kind: spec.ModelSpec
    shares: dict[str, float]

    def measure(self, window: pl.DataFrame, learnt: pl.DataFrame, amount: int) -> dict[str, float]:
        """What can be said of a window without asking a model, by name: mean of each monitored column, as seen by who
        learnt from `learnt`; `volume`, log of groups a day; `top_label`, share of the most frequent right answer; and
        `fresh`, the quality of a baseline that learnt from `amount` rows of one half of it, on the other half."""
        kind, table = self.kind, self.kind.table
        columns = kind.monitored(window, learnt).select(pl.all().cast(pl.Float64).mean()).row(0, named=True)
        span = int(window[table.time].max() - window[table.time].min()) + 1  # type: ignore[operator,arg-type]
        volume = float(np.log(window[table.group].n_unique() / (span / split.DAY_MS)))
        one, other = split.halves(split.some(window, table, MAX_ROWS), table)
        asked = kind.examples(other)
        scores = scoring.baseline_scores(kind, split.some(one, table, amount), asked)
        _, counts = np.unique(asked.labels, axis=0, return_counts=True)
        fresh = at_mix(scores, kinds(kind, other, learnt), self.shares)
        return columns | {"volume": volume, "top_label": float(counts.max() / counts.sum()), "fresh": fresh}

    def examine(
        self, window: pl.DataFrame, before: pl.DataFrame, learnt: pl.DataFrame, files: tuple[Path, Path],
        reference: gate.Interval, past: dict[str, list[float]],
    ) -> Examined:  # fmt: skip
        """Diagnose a window. `before` are all rows until it, `learnt` those that the champion learnt from; `files` are
        the ONNX files of the champion and of its trivial baseline; `reference` is what it reached on its hold-out;
        `past` has each signal, and `rows`, of windows in which nothing was wrong, at least `LEAST`."""
        kind = self.kind
        values = self.measure(window, learnt, int(LEARN_SHARE * np.median(past["rows"])))
        beside = signals(values, past)
        rows = split.some(window, kind.table, MAX_ROWS)
        one, other = split.halves(rows, kind.table)
        asked, held = kind.examples(rows), kind.examples(other)
        live, old = (
            kind.score(e, scoring.answer(file, e.inputs)) for e, file in zip((asked, held), files, strict=True)
        )
        anew = scoring.baseline_scores(kind, pl.concat([before, one]), held)
        gain = gate.interval(anew - old, held.groups, CONFIDENCE)
        fresh = beside.pop("fresh")
        error = (reference.high - reference.low) / 2 / NormalDist().inv_cdf((1 + kind.policy.confidence) / 2)
        said = Signal(
            name=kind.metric,
            value=at_mix(live, kinds(kind, rows, learnt), self.shares),
            usual=reference.mean,
            # The window varies as a fresh baseline's quality does; the reference is known to its own error only.
            limit=float(np.hypot(fresh.limit, 3 * error)),
            windows=fresh.windows,
        )
        worst = worst_part(live, asked.groups) / max(reference.mean, 1e-9)
        quality = Quality(live=said, fresh=fresh, gain=gain.mean, gain_low=gain.low, worst_part=worst)
        return Examined(
            diagnose(beside, quality, kind.policy.decay), values, [said, fresh, *beside.values()],
            gate.interval(live, asked.groups, kind.policy.confidence), gain,
        )  # fmt: skip


def kinds(kind: spec.ModelSpec, rows: pl.DataFrame, learnt: pl.DataFrame) -> np.ndarray:
    """What was asked in each of `kind.examples(rows)`: strings (n,), all the same where nothing is told apart."""
    if not kind.mix:
        return np.full(len(kind.examples(rows)), "")
    return kind.slices(rows, learnt).select(pl.concat_str(kind.mix, separator=" ")).to_series().to_numpy()


def calibrated(view: View, champion: registry.Version, learnt: pl.DataFrame, start: int, end: int) -> dict:
    """Each signal, and `rows`, in windows about as long as from `start` to `end` in which nothing was wrong: before
    the champion's hold-out, measured once for each champion, and after it, as this flow has noted them."""
    if quiet(champion, start, end).is_empty():
        frames = [
            as_rows(champion, first, last, end - start, "calibration", values)
            for first, last, values in usual_windows(view, learnt, end - start + 1)
        ]
        if frames:
            lake.note(WINDOWS, f"{champion.model}/{champion.number}/{octave(end - start)}", pl.concat(frames))
    noted = quiet(champion, start, end)
    found = {} if noted.is_empty() else {str(n[0]): part["value"].to_list() for n, part in noted.group_by("signal")}
    return {"rows": [], **found}


def usual_windows(view: View, learnt: pl.DataFrame, length: int) -> Iterator[tuple[int, int, dict[str, float]]]:
    """Start, end and what was measured of windows in the newer half of `learnt`: of `length` ms, or shorter, if there
    were fewer than can be learnt from; shorter ones vary more, so that limits are too wide and not too narrow."""
    table = view.kind.table
    first, last = int(learnt[table.time].min()), int(learnt[table.time].max()) + 1  # type: ignore[arg-type,operator]
    count = min(CELLS, max(LEAST + 1, (last - first) // 2 // length))
    step = min(length, (last - first) // 2 // count)
    starts = [last - step * (count - i) for i in range(count)]
    cells = [split.started(learnt, table, start, start + step - 1) for start in starts]
    amount = int(LEARN_SHARE * np.median([cell.height for cell in cells]))
    for start, cell in zip(starts, cells, strict=True):
        if cell[table.group].n_unique() >= PART_GROUPS:
            values = view.measure(cell, learnt.filter(pl.col(table.time) < start), amount)
            yield start, start + step - 1, values | {"rows": float(cell.height)}


def quiet(champion: registry.Version, start: int, end: int) -> pl.DataFrame:
    """Rows of the table of windows from which the limits for one from `start` to `end` are learnt: those of the
    calibration, and quiet ones before it that do not overlap with each other."""
    found = lake.noted(WINDOWS)
    if found.is_empty():
        return found
    mine = {"model": champion.model, "version": champion.number, "octave": octave(end - start)}
    found = found.filter(pl.col("end") < start, **mine)
    kept, until = [], -1
    for first, last, verdict in found.select("start", "end", "verdict").unique().sort("start", "end").rows():
        if verdict == "calibration" or (verdict == "quiet" and first > until):
            kept.append((first, last))
            until = last
    chosen = pl.DataFrame(kept, {"start": pl.Int64, "end": pl.Int64}, orient="row")
    return found.join(chosen, on=["start", "end"], how="semi")


def octave(length: int) -> int:
    """Which windows are about as long as one of `length` ms: their logarithm to base 2, rounded."""
    return round(float(np.log2(length)))


def as_rows(
    champion: registry.Version, start: int, end: int, length: int, verdict: str, values: dict[str, float]
) -> pl.DataFrame:
    """A window's signals for the table of windows; `length` is that of the windows it stands beside."""
    where = {"model": champion.model, "version": champion.number, "start": start, "end": end, "octave": octave(length)}
    return pl.DataFrame(
        [{**where, "verdict": verdict, "signal": name, "value": float(value)} for name, value in values.items()]
    )


def worst_part(scores: np.ndarray, groups: np.ndarray) -> float:
    """Smallest mean of `scores` (n,) in `PARTS` stretches of the window; `groups` (n,) ascend as they began."""
    parts = np.array_split(np.unique(groups), PARTS)
    return min(
        (float(scores[np.isin(groups, part)].mean()) for part in parts if len(part) >= PART_GROUPS),
        default=float(scores.mean()),
    )


def judged(champion: registry.Version) -> gate.Interval:
    """What the gate measured. Raises RuntimeError when it never scored the champion."""
    decision = gate.Decision.model_validate_json(champion.decision) if champion.decision else None
    if decision is None or decision.reference is None:
        name = f"{champion.model} version {champion.number}"
        raise RuntimeError(f"{name} is live, but no gate ever scored it, so there is no reference: run promote for it.")
    return decision.reference


def act(finding: Finding, needed: int, of: int) -> str:
    """Do what the verdict asks for, note the alarm and what became of it, and say so."""
    if finding.verdict in ("quiet", "not enough data"):
        return ""
    action, table = "Nothing to do but to watch.", spec.load(finding.model).table.name
    about = {"version": finding.version, "groups": finding.groups}
    if finding.verdict == "data broken":
        lake.distrust(table, finding.start, finding.end, finding.reason)
        action = "No training will learn from this window; its rows stay in the table."
        events.emit_table_event(
            events.DATA_BROKEN, table, finding.reason, model=finding.model, start=finding.start, end=finding.end
        )
    elif finding.verdict == "world changed":
        if (count := changed(finding, of)) < needed:
            action = f"{count} of the newest {of} windows say so; {needed} are needed for a retraining."
        else:
            action = "A retraining is asked for."
            live = next((s for s in finding.signals if s.name == spec.load(finding.model).metric), None)
            event = events.DECAY_DETECTED if live and live.off < -1 else events.DRIFT_DETECTED
            events.emit_model_event(event, finding.model, finding.reason, **about)
    row = finding.model_dump(include={"model", "version", "start", "end", "groups", "verdict", "reason"})
    key = f"{finding.model}/{finding.version}/{finding.start}/{finding.end}"
    lake.note(ALARMS, key, pl.DataFrame([row | {"action": action}]))
    return action


def changed(finding: Finding, of: int) -> int:
    """Of the newest `of` windows of this version, how many say that the world has changed."""
    found = lake.noted(WINDOWS).filter(
        pl.col("model") == finding.model, pl.col("version") == finding.version, pl.col("verdict") != "calibration"
    )
    newest = found.select("start", "end", "verdict").unique().sort("end", "start").tail(of)
    return int((newest["verdict"] == "world changed").sum())


def compare_data(
    kind: spec.ModelSpec, champion: registry.Version, window: pl.DataFrame, known: pl.DataFrame, learnt: pl.DataFrame
) -> drift.Drift:
    """Evidently's view of the window against the champion's hold-out, for people: to MLflow."""
    with tempfile.TemporaryDirectory() as folder:
        watermark = int(window[kind.table.time].max())  # type: ignore[arg-type]
        path = Path(folder) / f"drift-{watermark}.html"
        moved = drift.compare(kind.monitored(window, learnt), kind.monitored(known, learnt), path)
        registry.attach(champion, "monitor", moved.report)
    return moved


def page(kind: spec.ModelSpec, finding: Finding, moved: drift.Drift) -> str:
    """The finding as Markdown."""
    told = card.table(
        ["signal", "now", "usually", "limit", "windows", ""],
        [
            (s.name, f"{s.value:.4g}", f"{s.usual:.4g}", f"{s.limit:.2g}", s.windows, "alarm" if s.alarm else "")
            for s in finding.signals
        ],
    )
    psi = card.table(["column", "PSI"], [(name, f"{value:.3f}") for name, value in moved.values.items()])
    return (
        f"# {finding.model} version {finding.version}: {finding.verdict}\n\n{finding.reason}\n\n"
        f"{kind.metric}: {finding.realised} now, {finding.reference} when it was judged, {finding.groups} groups. "
        f"A trivial baseline gains {finding.gain} by learning anew.\n\n## Signals\n\n{told}\n\n"
        f"## Evidently\n\n{psi}\n\nIts report: MLflow, run of version {finding.version}, folder `monitor`."
    )
