"""Sources that have stopped: each an alarm once, and over when it delivers again."""

from collections.abc import Sequence

import polars as pl

from kreislauf import events
from kreislauf.clock import DAY_MS, span, when
from kreislauf.lake import journal
from kreislauf.lake.clocks import Source
from kreislauf.monitoring import tables
from kreislauf.monitoring.finding import Finding

SOURCE_STOPPED = "source stopped"
"""Verdict of the alarm, in the table `alarms`."""
REPORTED = "Somebody should mend what delivers it; trainings go on without it."
DELIVERS_AGAIN = "It delivers again."
NAMED_DAYS = 28
"""Days for which a source that has stopped is named: afterwards it has been given up."""


def recent(sources: Sequence[Source]) -> list[Source]:
    """The sources that have stopped, and have not been given up yet."""
    return [s for s in sources if s.stopped and _length(s) <= NAMED_DAYS * DAY_MS]


def _length(source: Source) -> int:
    """How long (ms) the source lacks."""
    return source.behind if source.is_late else source.silent


def sentences(sources: Sequence[Source]) -> list[str]:
    """A remark for each source that has stopped, with its cure."""
    return [_sentence(source) for source in recent(sources)]


def _sentence(source: Source) -> str:
    newest = f"its newest event is of {when(source.clock.newest)} (UTC)"
    if source.is_late:
        evidence = (
            f"{newest}, {span(source.behind)} behind the furthest source, and usually it delivers "
            f"after {span(source.clock.lag or 0)} at most. The newest rows lack its share, so they "
            "are fewer, and may look different"
        )
    else:
        evidence = (
            f"{newest}, nothing has been loaded of it for {span(source.silent)}, and usually "
            f"something is after {span(source.clock.pause or 0)} at most"
        )
    return (
        f"The source {source.name} has stopped: {evidence}. Mend what delivers it, and ingest "
        "what is missing: trainings learn from late rows, too. If it was given up, nothing has to "
        f"be done: after {NAMED_DAYS} days it is named no more."
    )


def record(finding: Finding, sources: Sequence[Source], table: str) -> None:
    """Emit an event and record an alarm for each source of the `table` that has stopped since the
    last look, and record that it is over for each that delivers again."""
    open_alarms = _open_alarms(finding.model)
    for source in recent(sources):
        if source.name not in open_alarms:
            _raise(finding, source, table)
    stopped = {source.name for source in sources if source.stopped}
    furthest = max((source.clock.newest for source in sources), default=finding.end)
    outcome = {"end": furthest, "action": DELIVERS_AGAIN, "flow_run": finding.flow_run}
    for name, row in open_alarms.items():
        if name not in stopped:
            journal.append_once(tables.ALARMS, f"{_key(row)}/over", pl.DataFrame([row | outcome]))


def _open_alarms(model: str) -> dict[str, dict]:
    """Rows of the table `alarms` about sources that have not delivered since, by source."""
    rows = tables.read(tables.ALARMS, model=model)
    if "source" not in rows.columns:
        return {}
    of_sources = rows.filter(verdict=SOURCE_STOPPED)
    over = of_sources.filter(action=DELIVERS_AGAIN)
    still = of_sources.filter(action=REPORTED).join(over, on=["source", "start"], how="anti")
    return {row["source"]: row for row in still.iter_rows(named=True)}


def _raise(finding: Finding, source: Source, table: str) -> None:
    newest = source.clock.newest
    reason = _sentence(source)
    row = {
        "model": finding.model,
        "version": finding.version,
        "start": newest,
        "end": newest + source.behind,
        "groups": 0,
        "verdict": SOURCE_STOPPED,
        "reason": reason,
        "flow_run": finding.flow_run,
        "action": REPORTED,
        "asks": False,
        "source": source.name,
    }
    events.emit_table_event(
        events.SOURCE_STOPPED,
        table,
        reason,
        model=finding.model,
        source=source.name,
        newest=newest,
        behind=source.behind,
    )
    journal.append_once(tables.ALARMS, _key(row), pl.DataFrame([row]))


def _key(row: dict) -> str:
    return "/".join(map(str, (row["model"], SOURCE_STOPPED, row["source"], row["start"])))
