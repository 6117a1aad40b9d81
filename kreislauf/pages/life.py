"""All that the lifecycle page shows, read from the lake and from beside the release log."""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from kreislauf.batch import history
from kreislauf.batch.history import AnsweredBatch
from kreislauf.clock import DAY_MS
from kreislauf.evaluation.decision import DECISIONS
from kreislauf.experiment import record
from kreislauf.experiment.record import Record
from kreislauf.lake import approvals, exclusions, journal
from kreislauf.lake.exclusions import HumanVerdict, Stretch
from kreislauf.monitoring import policy, status, tables
from kreislauf.monitoring.status import MonitorStatus
from kreislauf.release import releases
from kreislauf.release.releases import Release
from models.spec import ModelSpec

DAYS = 90
"""Days that the page shows, back from the newest."""
MAX_ROWS = 50
"""Newest rows of each table that the page shows."""
MAX_BATCHES = 10
"""Newest batches that the page shows."""
MAX_WINDOWS = 1_000
"""Newest windows that the page draws."""
CLICK_DAYS = 7
"""Days of answers whose clicks the page compares in an A/B test."""
CLOCK_LAG = 2 * DAY_MS
"""How far the newest data of a shop in operation lies behind the clock, at most."""
CURVES = {"live": pl.Float64, tables.FIRST_VERSION: pl.Float64, tables.BASELINE: pl.Float64}
"""Columns of `Life.windows` with a quality each."""
SCHEMA = {
    "end": pl.Int64,
    "version": pl.Int64,
    "verdict": pl.String,
    "flow_run": pl.String,
} | CURVES


@dataclass(frozen=True)
class Life:
    """What is to be said of a model type; times are ms since 1970 UTC."""

    model: str
    metric: str
    log: list[Release]
    """The newest entries of the release log, oldest first."""
    champions: list[Release]
    """Entries with which the champions of `log` went live, oldest first."""
    windows: pl.DataFrame
    """Columns of `SCHEMA`, oldest first."""
    decisions: pl.DataFrame
    """Rows of the table `decisions`, oldest first."""
    alarms: pl.DataFrame
    """Rows of the table `alarms`, oldest first."""
    status: MonitorStatus | None
    """What the newest look of the monitor said, if it was about the champion."""
    left_out: list[Stretch]
    """Stretches of time that no training learns from now, oldest first."""
    faults: list[tuple[int, int, str]]
    """Start, end and reason of each stretch that the monitor left out, oldest first."""
    verdicts: list[HumanVerdict]
    """What people say of stretches, oldest first."""
    first_champion: int | None
    """The first version that was ever live."""
    is_served: bool
    """Whether a server answers, beside the batches."""
    looks: dict[int, Record]
    """The newest look at each A/B test, by the number of its first release with a share."""
    looks_at_newest: list[Record]
    """Looks at the newest A/B test or hold-back of which there are some, the oldest first."""
    batches: list[AnsweredBatch]
    """The batches that were answered last, the newest first."""
    question: str
    """What a person is asked about a version; empty if nobody is."""
    newest: int
    """Newest data that anything here is about; 0 without any."""

    @property
    def current(self) -> Release | None:
        """The release in force."""
        return next(reversed(self.log), None)

    @property
    def waiting(self) -> list[str]:
        """What waits for a person, a text each."""
        texts = []
        if self.question:
            texts.append(self.question)
        elif self.current and self.current.hold:
            texts.append(
                f"The model is on hold: {self.current.hold} A person is asked before another "
                "version goes live, until somebody ends the hold with the flow lift."
            )
        if self.harm:
            texts.append(self.harm)
        if self.status and self.status.wait.startswith(policy.QUESTION):
            answers = [verdict for verdict in self.verdicts if verdict.at > self.status.at]
            if not answers:
                texts.append(self.status.wait)
        return texts

    @property
    def harm(self) -> str:
        """That the live version does harm, as its hold-back has shown, and stays; empty if not."""
        if not self.looks_at_newest or self.current is None:
            return ""
        newest = self.looks_at_newest[-1]
        begin = next((entry for entry in self.log if entry.number == newest.release), None)
        if newest.verdict.outcome != "harm" or begin is None or not begin.is_hold_back:
            return ""
        if begin.champion != self.current.champion:
            return ""
        return (
            f"Version {begin.champion} is live, and its users have shown that it does harm: "
            f"{newest.verdict.reason} It could not be rolled back. Make another version live with "
            "the flow publish, or train one."
        )

    @property
    def in_test(self) -> bool:
        """Whether an A/B test runs."""
        return self.current is not None and self.current.challenger is not None

    @property
    def clicks_since(self) -> int:
        """Beginning of the answers whose clicks are compared."""
        return self.newest - CLICK_DAYS * DAY_MS

    @property
    def since(self) -> int:
        """Beginning of what is shown."""
        return self.newest - DAYS * DAY_MS


def read(model_type: ModelSpec) -> Life:
    """Read what there is about a model type. Raises LakeError, or what the storage raises."""
    model = model_type.name
    log = releases.history(model, MAX_ROWS)
    champion = None
    if log:
        champion = log[-1].champion
    newest_look = status.read(model)
    if newest_look and newest_look.version != champion:
        newest_look = None
    decisions = journal.read(DECISIONS, model=model)
    times = [release.watermark or 0 for release in log]
    if newest_look:
        times.append(newest_look.end)
    if decisions.height:
        decisions = _with_flow_run(decisions).sort("holdout_end", "version")
        times.append(decisions["holdout_end"][-1])
    newest = max(times, default=0)
    since = newest - DAYS * DAY_MS
    table = model_type.table.name
    looks = record.newest(model)
    return Life(
        model=model,
        metric=model_type.metric,
        log=log,
        champions=_champions(log),
        windows=_windows(model, model_type.metric, since),
        decisions=decisions,
        alarms=_alarms(model, since),
        status=newest_look,
        left_out=exclusions.intervals(table),
        faults=_faults(table),
        verdicts=exclusions.verdicts(table),
        first_champion=_first_champion(model),
        is_served=model_type.is_served,
        looks=looks,
        looks_at_newest=record.read(model, max(looks, default=0)),
        batches=history.newest(model, MAX_BATCHES),
        question=_question(model, log, decisions),
        newest=newest,
    )


def moments(log: Sequence[Release], newest: int) -> list[int]:
    """Where each release stands on the axis of the data's time (ms).

    It is the clock's time at which it was written. In a replay, whose data is of another time, and
    for old entries without that time, it is what the champion has learnt until.
    """
    places = []
    before = 0
    for release in log:
        before = max(before, release.watermark or 0)
        if release.at is not None and before <= release.at <= newest + CLOCK_LAG:
            before = release.at
        places.append(before)
    return places


def _champions(log: Sequence[Release]) -> list[Release]:
    """The first of these champions may be live since an entry before them."""
    entries = [log[position] for position in releases.changes(log)]
    return [*map(releases.beginning, entries[:1]), *entries[1:]]


def _first_champion(model: str) -> int | None:
    first = releases.first(model)
    if first is None:
        return None
    return first.champion


def _windows(model: str, metric: str, since: int) -> pl.DataFrame:
    """The quality in each window that ended after `since` (ms): columns of `SCHEMA`."""
    rows = tables.read(tables.WINDOWS, pl.col("end") > since, model=model)
    if rows.is_empty():
        return pl.DataFrame(schema=SCHEMA)
    names = {metric: "live", tables.FIRST_VERSION: tables.FIRST_VERSION}
    names[tables.BASELINE] = tables.BASELINE
    looks = rows.filter(pl.col("verdict") != "calibration", pl.col("signal").is_in(list(names)))
    renamed = _with_flow_run(looks).with_columns(pl.col("signal").replace(names))
    of_window = [(pl.col("value").filter(signal=name)).first().alias(name) for name in CURVES]
    run = pl.col("flow_run").first()
    windows = renamed.group_by("end", "version", "verdict").agg(run, *of_window)
    return windows.select(list(SCHEMA)).sort("end", "version").tail(MAX_WINDOWS)


def _with_flow_run(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows of a table; none has a flow run where an earlier version of Kreislauf wrote it all."""
    if "flow_run" in rows.columns:
        return rows
    return rows.with_columns(flow_run=pl.lit(None, pl.String))


def _alarms(model: str, since: int) -> pl.DataFrame:
    rows = tables.read(tables.ALARMS, pl.col("end") > since, model=model)
    if rows.is_empty():
        return rows
    return _with_flow_run(rows).sort("end", maintain_order=True)


def _faults(table: str) -> list[tuple[int, int, str]]:
    """Stretches that grew from look to look are one, with the newest reason."""
    rows = journal.read(exclusions.DISTRUSTED, table=table)
    if rows.is_empty():
        return []
    rows = rows.sort("end", maintain_order=True)
    stretches = []
    for start, end in exclusions.merge(rows.select("start", "end").iter_rows()):
        inside = rows.filter(pl.col("start") >= start, pl.col("end") <= end)
        stretches.append((start, end, inside["reason"][-1]))
    return stretches


def _question(model: str, log: Sequence[Release], decisions: pl.DataFrame) -> str:
    """The newest question about a version, unless it was answered, or withdrawn because a newer
    version was promoted."""
    rows = journal.read(approvals.APPROVALS, model=model)
    if rows.is_empty():
        return ""
    asked = rows.filter(state="asked").sort("version")
    if asked.is_empty():
        return ""
    version, text = asked.select("version", "text").row(-1)
    declined = rows.filter(version=version, state="declined").height
    approved = any(release.champion == version for release in log)
    promoted = [row["version"] for row in decisions.rows(named=True) if row["outcome"] == "promote"]
    if declined or approved or max(promoted, default=0) > version:
        return ""
    return text
