"""Judge a challenger: champion and challenger answer the same later hold-out; a paired interval decides."""

import json
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
from prefect import flow, task
from prefect.artifacts import create_markdown_artifact

from models import spec
from tasks import card, drift, events, gate, lake, registry, releases, scoring, split

EVENTS = {
    "promote": events.MODEL_PROMOTED,
    "refuse": events.MODEL_REFUSED,
    "inconclusive": events.MODEL_INCONCLUSIVE,
}
DECISIONS = "decisions"
"""The lake's table with a row for each."""


@flow
def promote(model: str = "session_recommender", version: int | None = None) -> gate.Decision:
    """Decide whether a version may replace the champion. Changes nothing that serves.

    Args:
        model: Name of the model type.
        version: The challenger; default: the newest version.

    Returns:
        The decision, which is also emitted as an event, stored on the version, and shown in the version's card: an
        artifact of this run, and an HTML file in the version's MLflow run. A version that was judged against today's
        champion before gets the same decision again.

    Raises:
        registry.RegistryError: no such version, or MLflow does not answer.
    """
    challenger = registry.get(model, version) if version else newest(model)
    live = releases.current(model)
    champion = live.champion if live else None
    if challenger.decision:
        before = gate.Decision.model_validate_json(challenger.decision)
        if champion in (before.champion_version, challenger.number):
            return before
    decision = judge(model, challenger.number, champion)
    lake.note(DECISIONS, f"{model}/{challenger.number}/{champion}", as_row(challenger, decision))
    text = describe(model, challenger.number, decision)
    create_markdown_artifact(key=f"card-{model.replace('_', '-')}", markdown=text)
    events.emit_model_event(
        EVENTS[decision.outcome], model, " ".join(decision.reasons),
        version=challenger.number, champion=champion,
    )  # fmt: skip
    # Last: a run that died before does all of it again.
    registry.record_decision(challenger, decision)
    return decision


def newest(model: str) -> registry.Version:
    """The newest version. Raises RegistryError when there is none."""
    found = registry.versions(model)
    if not found:
        raise registry.RegistryError(f"{model} has no version yet: train one first.")
    return found[0]


@task(task_run_name="judge-{model}-{challenger}-against-{champion}")
def judge(model: str, challenger: int, champion: int | None) -> gate.Decision:
    """Let challenger, champion and trivial baseline answer the challenger's hold-out, and decide."""
    kind, version = spec.load(model), registry.get(model, challenger)
    lineage = version.lineage
    whole = lake.rebuild(kind.table, lineage.table_version, lineage.watermark, lineage.digest, lineage.without)
    known = pl.read_parquet(registry.artifact(version, "known"))
    rows = split.started(whole, kind.table, lineage.holdout, lineage.watermark)
    examples = kind.examples(rows)
    by = {column.name: column.cast(pl.String).to_numpy() for column in kind.slices(rows, known)}
    holdout = gate.Holdout(examples.digest(), lineage.holdout, examples.groups, by)

    def score(onnx: Path, trained_until: int, number: int | None = None) -> gate.Scores:
        outputs = scoring.answer(onnx, examples.inputs)
        return gate.Scores(
            values=kind.score(examples, outputs),
            holdout=holdout,
            metric=kind.metric,
            trained_until=trained_until,
            onnx=registry.sha256(onnx),
            version=number,
            cost=gate.Cost(
                scoring.p95(onnx, examples.inputs), onnx.stat().st_size / 1e6, kind.coverage(outputs, known)
            ),
            probabilities=kind.probabilities(outputs),
        )

    rival = registry.get(model, champion) if champion else None
    return gate.decide(
        challenger=score(registry.onnx_file(version), lineage.holdout, challenger),
        champion=score(registry.onnx_file(rival), rival.lineage.holdout, champion) if rival else None,
        baseline=score(registry.artifact(version, "baseline"), lineage.holdout),
        policy=kind.policy,
    )


def as_row(version: registry.Version, decision: gate.Decision) -> pl.DataFrame:
    """One row for the table of decisions."""
    told = decision.model_dump(mode="json")
    flat: dict = {"model": version.model, "version": version.number, "parent": version.lineage.parent}
    flat |= {"holdout_start": version.lineage.holdout, "holdout_end": version.lineage.watermark}
    flat |= {name: told[name] for name in ("champion_version", "outcome", "metric", "groups", "needed", "holdout")}
    flat |= {f"{who}_score": told[who] for who in ("challenger", "champion", "baseline")}
    for name in ("gain", "over_baseline"):
        flat |= {f"{name}_{part}": (told[name] or {}).get(part) for part in ("mean", "low", "high")}
    flat |= {"reasons": " ".join(decision.reasons)} | {name: json.dumps(told[name]) for name in ("slices", "costs")}
    whole = {"version", "parent", "holdout_start", "holdout_end", "champion_version", "groups", "needed"}
    text = {"model", "outcome", "metric", "holdout", "reasons", "slices", "costs"}
    types = {name: pl.Int64 if name in whole else pl.String if name in text else pl.Float64 for name in flat}
    return pl.DataFrame({name: [value] for name, value in flat.items()}, schema=types)


@task(task_run_name="describe-{model}-{number}")
def describe(model: str, number: int, decision: gate.Decision) -> str:
    """Add the version's card to its run. Returns it as Markdown."""
    kind, version = spec.load(model), registry.get(model, number)
    moved, judged = drifted(kind, version.lineage), lake.noted(DECISIONS).filter(pl.col("model") == model)
    text = page(version, decision, split.detectable(decision.groups, kind.policy), moved, judged)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "card.html"
        path.write_text(card.page(f"{model} version {number}", text, registry.curves(version)), encoding="utf-8")
        registry.attach(version, "card", path)
    return text


def drifted(kind: spec.ModelSpec, lineage: registry.Lineage) -> dict[str, float]:
    """How far each column of the hold-out is from the same stretch of time before it, both as they would have been seen
    by a model that learnt from all before; empty if there is no such stretch."""
    rows = lake.rebuild(kind.table, lineage.table_version, lineage.watermark, lineage.digest, lineage.without)
    stretch = lineage.watermark - lineage.holdout + 1

    def seen(start: int) -> pl.DataFrame:
        part = split.started(rows, kind.table, start, start + stretch - 1)
        known = kind.known(rows.lazy().filter(pl.col(kind.table.time) < start)).collect()
        return kind.monitored(part.lazy(), known).collect()

    if lineage.holdout - stretch <= lineage.start:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        return drift.compare(seen(lineage.holdout), seen(lineage.holdout - stretch), Path(folder) / "drift.html").values


def page(
    version: registry.Version, decision: gate.Decision, smallest: float, moved: dict[str, float], judged: pl.DataFrame
) -> str:
    """The card as Markdown: `smallest` is the gain that the hold-out could show, `moved` the drift of each column, and
    `judged` the decisions about all versions."""
    name, lineage, parity = f"{version.model} version {version.number}", version.lineage, version.parity
    slices = card.table(
        ["slice", "", "groups", "challenger minus champion"],
        [(part.by, part.value, part.groups, part.gain) for part in decision.slices],
    )
    proven = (
        f"it was compared with the module on {parity.inputs} inputs in batches of 1 to {parity.largest_batch}"
        if parity
        else "its parity is not known"
    )
    sections = [
        f"# {name}: {decision.outcome}",
        " ".join(decision.reasons),
        f"## Quality on the hold-out\n\n{_quality(decision)}",
        _intervals(decision),
        f"The {decision.groups} groups show a gain of {smallest:.4f} in most cases, a smaller one less often.",
        f"## Slices\n\n{slices}" if slices else "",
        f"## Data\n\nLearnt from {_day(lineage.start)} to {_day(lineage.holdout)}, judged on what came until "
        f"{_day(lineage.watermark)} (UTC). Table {lineage.table}, version {lineage.table_version}, digest "
        f"`{lineage.digest}`.",
        f"## Drift from training to hold-out\n\n{_drift(moved)}",
        "## Lineage\n\nThe version, and those whose weights it started from:",
        ancestors(version, judged),
        f"MLflow run `{version.run_id}` has parameters, curves, code version and environment. The ONNX file's SHA-256 "
        f"is `{version.digests['model.onnx']}`; {proven}.",
        "## Back\n\nIf it is live and does harm, this makes the version before it live again, or, with "
        "`--param version=N`, an earlier one:\n\n"
        f"    prefect deployment run rollback/rollback --param model={version.model}",
    ]
    return "\n\n".join(filter(None, sections))


def _intervals(decision: gate.Decision) -> str:
    told = {
        decision.metric: decision.reference,
        "minus champion": decision.gain,
        "minus trivial baseline": decision.over_baseline,
    }
    found = [f"{what} {interval}" for what, interval in told.items() if interval]
    return f"The challenger with its intervals: {', '.join(found)}." if found else ""


def _quality(decision: gate.Decision) -> str:
    rows = []
    for who in ("challenger", "champion", "baseline"):
        cost, score = decision.costs.get(who), getattr(decision, who)
        told = (cost.p95_ms, cost.megabytes, cost.coverage) if cost else (None, None, None)
        name = f"champion, version {decision.champion_version}" if who == "champion" and score is not None else who
        rows.append((name, *map(_number, (score, *told), (4, 2, 1, 3))))
    return card.table(["", decision.metric, "p95, ms", "MB", "coverage"], rows)


def ancestors(version: registry.Version, judged: pl.DataFrame) -> str:
    """The version, its parent, and so on to one without: what the gate said of each, as a table."""
    last = {row["version"]: row for row in judged.iter_rows(named=True)}
    rows, number = [], version.number
    while number is not None and number in last:
        row = last[number]
        gain = f"{row['gain_mean']:+.4f}" if row["gain_mean"] is not None else "first"
        rows.append((number, row["outcome"], _number(row["challenger_score"], 4), gain, _day(row["holdout_start"])))
        number = row["parent"]
    return card.table(["version", "decision", "score", "gain over the champion", "learnt until"], rows)


def _drift(moved: dict[str, float]) -> str:
    rows = [(name, f"{value:.3f}", "drifted" if value >= drift.THRESHOLD else "") for name, value in moved.items()]
    return card.table(["column", "PSI", ""], rows) or "There is too little before the hold-out to compare it with."


def _day(time: int) -> str:
    return f"{datetime.fromtimestamp(time / 1000, UTC):%Y-%m-%d %H:%M}"


def _number(value: float | None, digits: int) -> str | None:
    return None if value is None else f"{value:.{digits}f}"
