"""What a training learns from: the newest rows, cut by time, read once for all of its steps."""

import math
from dataclasses import dataclass

import polars as pl

from kreislauf import lake, registry
from kreislauf.clock import DAY_MS, when
from kreislauf.evaluation import split
from kreislauf.lake import exclusions, row_cache, watermarks
from models import spec
from models.table import Table


@dataclass(frozen=True)
class TrainingData:
    """Rows up to the watermark, those of the hold-out too, and where they come from."""

    rows: pl.DataFrame
    cut: split.Cut
    digest: str
    """SHA-256 of the rows, hexadecimal."""
    without: list[tuple[int, int]]
    """Stretches of time that are left out, ms since 1970 UTC, inclusive."""
    newest: lake.Watermark
    """Where the table ended, and what lay ahead of it."""

    def lineage(self, table: str, key: str, parent: int | None = None) -> registry.Lineage:
        """Where a version that learns from these rows comes from."""
        return registry.Lineage(
            key=key,
            table=table,
            parent=parent,
            digest=self.digest,
            without=self.without,
            ahead=self.newest.ahead,
            **self.cut.model_dump(),
        )


def read_newest(model_type: spec.ModelSpec) -> TrainingData:
    """The rows that a training would learn from now. They are cached for the steps that follow.

    Raises split.TooSmall when there are too few, lake.LakeError when there are none.
    """
    table = model_type.table
    version = lake.version(table)
    without = exclusions.intervals(table.name)
    newest, rows = _newest(table, version, without)
    cut = split.cut(rows, model_type, version)
    digest = lake.digest(rows)
    snapshot = row_cache.Snapshot(table, version, cut.watermark, digest, without)
    return TrainingData(row_cache.store(snapshot, rows), cut, digest, without, newest)


def shortage(model_type: spec.ModelSpec) -> str:
    """That `read_newest` would find too few rows, in a sentence with how many there are, how many
    are needed, and when there will be enough; empty if there are enough. Raises lake.LakeError when
    there is no table."""
    table = model_type.table
    version = lake.version(table)
    _, rows = _newest(table, version, exclusions.intervals(table.name))
    try:
        split.cut(rows, model_type, version)
    except split.TooSmall as error:
        return str(error)
    return ""


def _newest(
    table: Table, version: int, without: list[tuple[int, int]]
) -> tuple[lake.Watermark, pl.DataFrame]:
    """Where the table ends, and the rows until then, but `without`."""
    newest = watermarks.find(table, version) or lake.Watermark(time=0, newest=0)
    return newest, lake.read(table, version, end=newest.time + 1, without=without)


def reason_to_wait(model_type: spec.ModelSpec, champion: registry.Lineage) -> str:
    """Why a training now could not be judged against the champion, and until when; empty if it
    could.

    The hold-out must not begin before the champion's: it would hold rows that the champion learnt
    from. It must be no longer than half of the time, as in split.cut. Raises lake.LakeError.
    """
    table = model_type.table
    version = lake.version(table)
    newest = watermarks.find(table, version)
    if newest is None:
        return ""
    # Groups that began before the hold-out are told by their rows of the day before.
    start = champion.holdout - DAY_MS
    without = exclusions.intervals(table.name)
    rows = lake.read(table, version, start=start, end=newest.time + 1, without=without)
    longest = (newest.time + 1 - champion.start) // DAY_MS // 2
    days = min((newest.time + 1 - champion.holdout) // DAY_MS, longest)
    groups = _groups_since(model_type, rows, newest.time + 1 - days * DAY_MS)
    needed = split.groups_needed(model_type.policy)
    if groups >= needed:
        return ""
    text = (
        f"The longest hold-out that can judge has {days} days, because the champion has learnt from"
        f" what was before, or because half of the time is learnt from. It has {groups} "
        f"{table.group} values with a right answer, and the gate needs {needed}."
    )
    new_groups = _groups_since(model_type, rows, champion.watermark + 1)
    if not new_groups:
        return f"{text} None has come since, so nobody can say when there will be enough."
    per_day = new_groups * DAY_MS / (newest.time - champion.watermark)
    enough = max(math.ceil(needed / per_day), days + 1) * DAY_MS
    until = when(max(champion.holdout + enough, champion.start + 2 * enough))
    return f"{text} At the pace since then, there will be enough by {until} (UTC)."


def _groups_since(model_type: spec.ModelSpec, rows: pl.DataFrame, start: int) -> int:
    """Number of groups since `start` (ms) with a right answer."""
    return split.judged_groups(model_type, rows.filter(model_type.table.within(start)))
