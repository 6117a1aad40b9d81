"""What the monitor keeps for how long: a look every hour makes nine thousand windows and pages a
year."""

from collections.abc import Iterable

import polars as pl

from kreislauf import registry
from kreislauf.clock import DAY_MS
from kreislauf.lake import journal
from kreislauf.monitoring import tables

REPORTS = "monitor"
"""Folder of a version's run with Evidently's pages."""
FORGOTTEN = {
    tables.WINDOWS: "verdict <> 'calibration'",
    tables.SLICES: "true",
    tables.ALARMS: "true",
}
"""Tables that forget old windows, and the SQL predicate of the rows that may go."""


def report_name(end: int) -> str:
    """File name of Evidently's page about the window that ends at `end` (ms)."""
    return f"drift-{end}.html"


def report_end(name: str) -> int:
    """End (ms) of the window that the page of this name is about."""
    return int(name.removeprefix("drift-").removesuffix(".html"))


def forget_windows(days: int) -> int:
    """Delete what the tables say of windows that ended more than `days` before the model's newest;
    the number of rows.

    Calibration windows stay: a version's tolerances are learnt from them as long as it is live.
    """
    looks = tables.read(tables.WINDOWS, pl.col("verdict") != "calibration")
    if looks.is_empty():
        return 0
    newest = looks.group_by("model").agg(pl.col("end").max())
    deleted = 0
    for model, end in newest.rows():
        old = f"model = '{model}' AND \"end\" < {end - days * DAY_MS}"
        for name, may_go in FORGOTTEN.items():
            deleted += journal.delete(name, f"{old} AND {may_go}")
    return deleted


def old_reports(
    ends: Iterable[int], alarms: Iterable[tuple[int, str]], newest: int, days: int
) -> list[int]:
    """Ends (ms) of the windows of a version whose pages may go.

    Those of the last `days` before `newest` (ms) stay that are the last of their day (UTC), or the
    last of an alarm of that day: `alarms` are the end and the verdict of each.
    """
    verdicts = dict(alarms)
    last = {}
    for end in sorted(end for end in ends if end > newest - days * DAY_MS):
        last[end // DAY_MS, ""] = end
        last[end // DAY_MS, verdicts.get(end, "")] = end
    return sorted(set(ends) - set(last.values()))


def sweep_reports(model: str, days: int) -> int:
    """Delete the old pages of all versions of a model; their number. Raises RegistryError."""
    versions = registry.versions(model)
    ends = [[report_end(name) for name in registry.attached(v, REPORTS)] for v in versions]
    newest = max((end for of_version in ends for end in of_version), default=0)
    recorded = tables.read(tables.ALARMS, model=model)
    deleted = 0
    for version, of_version in zip(versions, ends, strict=True):
        alarms = []
        if not recorded.is_empty():
            mine = recorded.filter(version=version.number)
            alarms = mine.select("end", "verdict").rows()
        old = old_reports(of_version, alarms, newest, days)
        if old:
            registry.detach(version, REPORTS, map(report_name, old))
        deleted += len(old)
    return deleted
