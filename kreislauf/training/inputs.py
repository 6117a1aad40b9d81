"""What a training learns from: the newest rows, cut by time, read once for all of its steps."""

from dataclasses import dataclass

import polars as pl

from kreislauf import lake, registry
from kreislauf.evaluation import split
from kreislauf.lake import exclusions, row_cache, watermarks
from models import spec


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
    newest = watermarks.find(table, version) or lake.Watermark(time=0, newest=0)
    rows = lake.read(table, version, end=newest.time + 1, without=without)
    cut = split.cut(rows, model_type, version)
    digest = lake.digest(rows)
    snapshot = row_cache.Snapshot(table, version, cut.watermark, digest, without)
    return TrainingData(row_cache.store(snapshot, rows), cut, digest, without, newest)
