"""The tables of the lifecycle page: what `life.py` has read, as rows of texts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from kreislauf.clock import when
from kreislauf.evaluation.intervals import Interval
from kreislauf.lake import exclusions
from kreislauf.pages.charts import LabelledInterval
from kreislauf.pages.life import CURVES, MAX_ROWS, Life
from kreislauf.pages.links import Links
from kreislauf.release.releases import NO_MODEL, Release

UNKNOWN = "-"
LONG = 200
"""Characters of a text that is shown at once."""


@dataclass(frozen=True)
class Cell:
    """A cell of a table."""

    text: str
    href: str = ""
    css: str = ""

    @property
    def beginning(self) -> str:
        """As much of the text as is shown before somebody asks for the rest."""
        if len(self.text) <= LONG:
            return self.text
        return self.text[:LONG].rsplit(" ", 1)[0]

    @property
    def rest(self) -> str:
        """The rest of a long text."""
        return self.text.removeprefix(self.beginning)


@dataclass(frozen=True)
class Table:
    """A table whose first column names the row."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]


def windows(life: Life, links: Links) -> Table:
    """The newest windows with verdict and qualities."""
    rows = []
    for row in newest(life.windows).iter_rows(named=True):
        qualities = [number(row[name]) for name in CURVES]
        cells = [Cell(when(row["end"])), Cell(f"{row['version']}", css="n")]
        rows.append([*cells, *qualities, verdict(row, links)])
    head = ["window until", "version", "live", "first version", "baseline", "verdict"]
    return Table(f"{life.metric} and verdict of each window, the newest first", head, rows)


def releases(life: Life, links: Links) -> Table:
    """The release log's newest entries."""
    rows = []
    for release in reversed(life.log):
        cells = [
            Cell(f"{release.number}", css="n"),
            Cell(time(release.at), links.flow_run(release.flow_run)),
            version(life.model, release.champion, links),
            version(life.model, release.previous, links),
            Cell(time(release.watermark)),
            Cell(release.reason, css="text"),
            Cell(release.who),
        ]
        rows.append(cells)
    head = ["release", "written", "live version", "version before", "learnt until", "why", "by"]
    return Table("Entries of the release log, the newest first", head, rows)


def decisions(life: Life, links: Links) -> Table:
    """What the gate has decided."""
    rows = []
    for row in newest(life.decisions).iter_rows(named=True):
        cells = [
            version(life.model, row["version"], links),
            Cell(row["outcome"], links.flow_run(row["flow_run"]), row["outcome"]),
            number(row["challenger_score"]),
            number(row["champion_score"]),
            Cell(interval_text(gain(row)), css="n"),
            Cell(interval_text(interval(row, "over_baseline")), css="n"),
            Cell(time(row["holdout_end"])),
            Cell(row["reasons"], css="text"),
        ]
        rows.append(cells)
    head = ["version", "decision", "its score", "live score", "gain over the live one"]
    head += ["gain over the baseline", "judged on data until", "why"]
    return Table("Decisions of the gate, the newest first", head, rows)


def batches(life: Life, links: Links, rates: Mapping[str, float]) -> Table:
    """What was answered in batches; `rates` are clicks per answer by a batch's name."""
    rows = []
    for answered in life.batches:
        batch = answered.batch
        asked = batch.source
        if batch.start is not None and batch.end is not None:
            asked = f"{when(batch.start)} to {when(batch.end)}"
        cells = [
            Cell(asked),
            version(life.model, batch.version, links),
            Cell(f"{answered.answered:,}", css="n"),
            Cell(f"{answered.refused:,}", css="n"),
            number(rates.get(batch.name)),
            Cell(batch.name),
        ]
        rows.append(cells)
    head = ["window or file", "version", "answered", "refused", "clicks per answer", "batch"]
    return Table("Batches that were answered last, the newest first", head, rows)


def alarms(life: Life, links: Links) -> Table:
    """What asked for attention, and what followed."""
    rows = []
    for row in newest(life.alarms).iter_rows(named=True):
        cells = [
            Cell(when(row["end"])),
            Cell(f"{row['version']}", css="n"),
            verdict(row, links),
            Cell(row["reason"], css="text"),
            Cell(row["action"], css="text"),
        ]
        rows.append(cells)
    head = ["window until", "version", "verdict", "evidence", "what followed"]
    return Table("Alarms of the monitor, the newest first", head, rows)


def opinions(life: Life) -> Table:
    """What the monitor and people said of stretches of the data, the newest stretch first."""
    rows = []
    for start, end, reason in life.faults:
        rows.append((start, end, "the monitor", "left out", reason))
    for verdict in life.verdicts:
        says = "trusted"
        if not verdict.trusted:
            says = "left out"
        rows.append((*verdict.stretch, verdict.who, says, verdict.reason))
    ordered = sorted(rows, key=lambda row: row[1])[-MAX_ROWS:]
    cells = []
    for start, end, who, says, reason in reversed(ordered):
        texts = (when(start), last(end), who, says)
        cells.append([*map(Cell, texts), Cell(reason, css="text")])
    head = ["from", "until", "who", "says", "why"]
    return Table("What the monitor and people said of the data", head, cells)


def left_out(life: Life) -> list[str]:
    """The stretches that no training learns from now, the newest first."""
    newest_stretches = reversed(life.left_out[-MAX_ROWS:])
    return [f"{when(start)} to {last(end)}" for start, end in newest_stretches]


def gains(life: Life, count: int) -> list[LabelledInterval]:
    """Label, outcome and gain of the newest `count` decisions that compared two versions."""
    rows = []
    for row in newest(life.decisions).iter_rows(named=True):
        compared = gain(row)
        if compared:
            label = f"v{row['version']} {row['outcome']}"
            rows.append(LabelledInterval(label, row["outcome"], compared))
    return rows[:count]


def newest(rows: pl.DataFrame) -> pl.DataFrame:
    """The newest rows, the newest first, of some that are ordered."""
    return rows.tail(MAX_ROWS).reverse()


def gain(row: dict) -> Interval | None:
    """Gain over the champion, of a row of the table `decisions`."""
    return interval(row, "gain")


def interval(row: dict, name: str) -> Interval | None:
    """An interval of a row of the table `decisions`; None if it has none."""
    if row[f"{name}_mean"] is None:
        return None
    bounds = {bound: row[f"{name}_{bound}"] for bound in ("mean", "low", "high")}
    return Interval(**bounds)


def interval_text(compared: Interval | None) -> str:
    """An interval in a cell."""
    if compared is None:
        return "none"
    return str(compared)


def version(model: str, numbered: int | None, links: Links) -> Cell:
    """A version, with its page in MLflow."""
    if numbered is None:
        return Cell("none", css="n")
    if numbered == NO_MODEL:
        return Cell("no model", css="n")
    return Cell(f"{numbered}", links.version(model, numbered), "n")


def verdict(row: dict, links: Links) -> Cell:
    """A verdict of the monitor, with the run that gave it."""
    return Cell(row["verdict"], links.flow_run(row["flow_run"]))


def number(value: float | None) -> Cell:
    """A quality in a cell."""
    if value is None:
        return Cell(UNKNOWN, css="n")
    return Cell(f"{value:.4f}", css="n")


def share(release: Release) -> str:
    """Share of the users with the challenger."""
    if release.share == 0:
        return "none, in the shadow"
    if release.is_hold_back:
        return f"{release.share:.1%}, held back"
    return f"{release.share:.1%}"


def time(moment: int | None) -> str:
    """ms since 1970 as a date and time, UTC; old entries do not have every one."""
    if moment is None:
        return UNKNOWN
    return when(moment)


def last(end: int) -> str:
    """The end of a stretch, which may go on."""
    if end >= exclusions.NO_END:
        return "now on"
    return when(end)
