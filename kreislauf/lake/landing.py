"""The commit that makes a load visible.

It holds the rows, the accounts, how far the source has been read (Delta transaction ids), and the
names of the files with the rejects. It is made on exactly the version that was read: after a lost
race, duplicates are looked for again on the dates that the winner wrote to.
"""

import uuid
from dataclasses import dataclass
from datetime import date

import polars as pl
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError

from kreislauf.lake import delta, quarantine
from kreislauf.lake.accounts import Accounts, Kind
from kreislauf.lake.delta import LakeError, Part
from kreislauf.lake.staging import DATE, Intake, Stage
from kreislauf.lake.validate import REJECTED
from models.table import Table

Progress = dict[str, tuple[int | None, int | None]]
"""Delta transaction id to its value before and after a load; None before: never set, after: the
load's version."""


class Overtaken(LakeError):
    """Somebody else has loaded this, or a part of it, meanwhile."""


@dataclass(frozen=True)
class Origin:
    """Where lines come from, and what says that they have been loaded."""

    kind: Kind
    source: str
    progress: Progress
    sha256: str | None = None
    replaces: str | None = None
    """SQL predicate of the rejects that a replay read: its own take their place."""


@dataclass
class _Day:
    """The fresh rows of one date, as files of the table that no commit has named yet."""

    beside: frozenset[str]
    """The table's files of that date among which duplicates were looked for."""
    parts: list[Part]


def land(table: Table, intake: Intake, origin: Origin) -> Accounts:
    """Commit a load, on newer and newer versions while other writers are faster.

    Raises Overtaken if the table's progress is not the one that `origin` starts from.
    """
    mine = str(uuid.uuid4())
    days: dict[date, _Day] = {}
    rejects: list[Part] | None = None
    for _ in range(delta.ATTEMPTS):
        found = _writable(table)
        _check_progress(found, origin)
        rejects = _put_rejects(table, intake, origin) if rejects is None else rejects
        _refresh(table, intake.stage, found, days)
        parts = [part for day in days.values() for part in day.parts]
        after = found.version() + 1
        accounts = Accounts(
            **intake.counts(kept=sum(part.rows for part in parts)),
            table=table.name, kind=origin.kind, source=origin.source, sha256=origin.sha256, version=after,
        )  # fmt: skip
        progress = {
            name: after if new is None else new for name, (_, new) in origin.progress.items()
        }
        said = {"load": mine, "accounts": accounts.model_dump_json()}
        if rejects or origin.replaces:
            said |= quarantine.intent(found, table, rejects, origin.replaces)
            progress[quarantine.newest(table)] = after
        try:
            delta.commit(found, parts, progress, said)
            return accounts
        except CommitFailedError:
            # A lost answer of the storage looks like a lost race.
            if delta.said(table.name, after).get("load") == mine:
                return accounts
    raise delta.too_busy(table.name)


def _put_rejects(table: Table, intake: Intake, origin: Origin) -> list[Part]:
    """Write the rejects as files of the table `rejects`, which no commit has named yet."""
    files = (pl.read_ipc(path) for path in sorted(intake.rejects.iterdir()))
    sha256 = pl.lit(origin.sha256, pl.String).alias("sha256")
    partition = {"table": table.name}
    return [
        delta.put(quarantine.REJECTS, partition, lines.select(sha256, *REJECTED)) for lines in files
    ]


def _writable(table: Table) -> DeltaTable:
    """The table, with all columns that the model type has."""
    schema = pl.Schema({DATE: pl.Date(), **table.dtypes})
    for _ in range(delta.ATTEMPTS):
        try:
            found = delta.find(table.name) or delta.create(table.name, schema, DATE)
            if found.metadata().partition_columns != [DATE]:
                where = f"Table {table.name} in {delta.uri(table.name)}"
                raise LakeError(f"{where} is not partitioned by {DATE}: use a new lake.")
            if not delta.widen(found, schema):
                return found
        except CommitFailedError:
            continue
    raise delta.too_busy(table.name)


def _check_progress(found: DeltaTable, origin: Origin) -> None:
    for name, (before, _) in origin.progress.items():
        if (now := found.transaction_version(name)) != before:
            raise Overtaken(
                f"{name} is at {now} and not at {before}: somebody else has loaded {origin.source} meanwhile."
            )


def _refresh(table: Table, stage: Stage, found: DeltaTable, days: dict[date, _Day]) -> None:
    """Look for duplicates on the dates that other writers have changed, and write those dates'
    fresh rows again."""
    files = delta.files(found)
    for name in stage.rows:
        day = days.get(name)
        stored = files.filter(pl.col(f"partition.{DATE}") == name) if files.height else files
        beside = frozenset(stored["path"]) if stored.height else frozenset()
        if day and day.beside == beside:
            continue
        # The commit that named them has failed, so that nobody else knows of them.
        delta.remove(table.name, [part.path for part in day.parts] if day else [])
        known = (
            as_rows(table, pl.scan_delta(found).filter(pl.col(DATE) == name)) if beside else None
        )
        partition = {DATE: str(name)}
        days[name] = _Day(
            beside, [delta.put(table.name, partition, part) for part in stage.fresh(name, known)]
        )


def as_rows(table: Table, stored: pl.LazyFrame) -> pl.LazyFrame:
    """Columns and types of the table, from what Delta has stored; columns that it lacks are
    null."""
    lacking = set(table.dtypes) - set(stored.collect_schema())
    stored = stored.with_columns(pl.lit(None).alias(name) for name in lacking)
    return stored.select(pl.col(name).cast(dtype) for name, dtype in table.dtypes.items())
