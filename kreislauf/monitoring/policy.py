"""What follows from a finding"""

import time

import polars as pl

from kreislauf import events, registry
from kreislauf.clock import when
from kreislauf.lake import exclusions, journal
from kreislauf.monitoring import alarms, regret, status
from kreislauf.monitoring.finding import WINDOWS, Finding
from models import spec

ASKED = "A retraining is asked for."
LOOK = "Somebody should look at it; trainings still learn from it."


def tell(finding: Finding) -> None:
    """Leave the finding where the gateway shows it to Prometheus."""
    signals = {
        s.name: status.SignalStatus(value=s.value, usual=s.usual, limit=s.limit)
        for s in finding.signals
    }
    about = finding.model_dump(include={"model", "version", "end", "verdict"})
    status.write(status.MonitorStatus(**about, at=int(time.time() * 1000), signals=signals))


def act(finding: Finding, needed: int, of: int, cost: float) -> str:
    """Do what the verdict asks for, note the alarm and what became of it, and say so."""
    if finding.verdict in ("quiet", "not enough data"):
        return ""
    action = "Nothing to do but to watch."
    table = spec.load(finding.model).table.name
    about = {"version": finding.version, "groups": finding.groups}
    if finding.verdict == "data broken":
        start, end = finding.faulty or (finding.start, finding.end)
        action = LOOK if not told_before(finding) else "An overlapping window has said so."
        if finding.faulty:
            exclusions.exclude(table, start, end, finding.reason)
            action = f"No training will learn from {when(start)} to {when(end)}; the rows stay in the table."
        if finding.faulty or action == LOOK:
            told: dict = {
                "model": finding.model,
                "start": start,
                "end": end,
                "left_out": bool(finding.faulty),
            }
            events.emit_table_event(events.DATA_BROKEN, table, finding.reason, **told)
    elif finding.verdict == "world changed":
        trained = registry.finished(finding.model)
        since = trained.lineage.watermark if trained else 0
        newest = finding.start, finding.end, finding.verdict, finding.loss
        seen = regret.apart(journal.read(WINDOWS), finding.model, finding.version, since, newest)
        if (count := (seen["verdict"] == "world changed").head(of).sum()) < needed:
            action = (
                f"{count} of the newest {of} windows say so; {needed} are needed for a retraining."
            )
        elif (gone := regret.lost(seen, since)) < cost:
            action = f"{gone:.3f} of {cost:g} (metric times days) is lost that a training costs."
        else:
            action = ASKED
            live = next(
                (s for s in finding.signals if s.name == spec.load(finding.model).metric), None
            )
            event = events.DECAY_DETECTED if live and live.off < -1 else events.DRIFT_DETECTED
            events.emit_model_event(event, finding.model, finding.reason, **about)
    row = finding.model_dump(
        include={"model", "version", "start", "end", "groups", "verdict", "reason"}
    )
    alarms.record(row, action, asks=action == ASKED)
    return action


def told_before(finding: Finding) -> bool:
    """Whether somebody was asked to look at a window that overlaps with this one."""
    found = journal.read(alarms.ALARMS)
    asked = {"model": finding.model, "action": LOOK}
    return found.height > 0 and found.filter(pl.col("end") >= finding.start, **asked).height > 0
