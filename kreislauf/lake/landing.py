"""The commit that makes a load visible.

It holds the rows, the accounts, how far the source has been read (Delta transaction ids), and the
names of the files with the rejects. It is made on exactly the version that was read. After a lost
race, duplicates are looked for again on the dates that the winner wrote to.
"""

import time
import uuid
from dataclasses import dataclass, field
from datetime import date

import polars as pl
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError

from kreislauf.lake import (
    clocks,
    data_files,
    delta,
    duplicates,
    quarantine,
    storage,
)
from kreislauf.lake.accounts import Accounts, LoadKind
from kreislauf.lake.data_files import DataFile
from kreislauf.lake.intake import Intake
from kreislauf.lake.staging import DATE, Stage
from kreislauf.lake.storage import LakeError
from kreislauf.lake.validate import REJECTED
from models.mapping import Mapping
from models.table import Table

Progress = dict[str, tuple[int | None, int | None]]
"""Delta transaction id to its value before and after a load.

None before means that it was never set, None after the load's version."""


class Overtaken(LakeError):
    """Somebody else has loaded this, or some of it, meanwhile."""


@dataclass(frozen=True)
class Origin:
    """Where lines come from, and what says that they have been loaded."""

    kind: LoadKind
    source: str
    progress: Progress
    sha256: str | None = None
    replaces: str | None = None
    """SQL predicate of the rejects that a replay read: its own take their place."""
    mapping: Mapping | None = None
    """By which the rows were read, if it is not the table's own."""
    source_name: str | None = None
    """Folder, prefix or topic whose clock the load moves; None for none."""


@dataclass
class _Day:
    """The new rows of one date, as files of the table that no commit has named yet."""

    compared: frozenset[str]
    """The table's files of that date among which duplicates were looked for."""
    files: list[DataFile] = field(default_factory=list)


def open_table(table: Table) -> DeltaTable:
    """The newest version of the table, with all columns that the model type has."""
    schema = pl.Schema({DATE: pl.Date(), **table.dtypes})
    for _ in range(storage.ATTEMPTS):
        try:
            stored = delta.find(table.name) or delta.create(table.name, schema, DATE)
            if stored.metadata().partition_columns != [DATE]:
                where = f"Table {table.name} in {storage.uri(table.name)}"
                raise LakeError(f"{where} is not partitioned by {DATE}: use a new lake.")
            if not delta.widen(stored, schema):
                return stored
        except CommitFailedError:
            continue
    raise storage.too_busy(table.name)


class Landing:
    """A load on its way into the table, as files that no commit has named yet."""

    def __init__(
        self, table: Table, intake: Intake, origin: Origin, newest_hours: pl.DataFrame
    ) -> None:
        """`newest_hours` are `clocks.hours` of the load."""
        self._id = str(uuid.uuid4())
        self._table = table
        self._intake = intake
        self._origin = origin
        self._stage = intake.stage
        self._days: dict[date, _Day] = {}
        self._rejects: list[DataFile] | None = None
        self._newest_hours = newest_hours

    def check_progress(self, stored: DeltaTable) -> None:
        """Raises Overtaken if the table's progress is not the one that the load starts from."""
        for name, (before, _) in self._origin.progress.items():
            now = stored.transaction_version(name)
            if now != before:
                raise Overtaken(
                    f"{name} is at {now} and not at {before}: "
                    f"somebody else has loaded {self._origin.source} meanwhile."
                )

    def put_rejects(self) -> None:
        """Write the rejects as files of the table `rejects`, once."""
        if self._rejects is not None:
            return
        sha256 = pl.lit(self._origin.sha256, pl.String).alias("sha256")
        partition = {"table": self._table.name}
        self._rejects = []
        for path in sorted(self._intake.rejects.iterdir()):
            lines = pl.read_ipc(path).select(sha256, *REJECTED)
            self._rejects.append(data_files.put(quarantine.REJECTS, partition, lines))

    def put_rows(self, stored: DeltaTable, stage: Stage) -> None:
        """Write the rows that the table lacks as files of it, again where others wrote meanwhile,
        and all of them if the stage is another one than before.

        Memory is bounded by the stage's buckets.
        """
        table = self._table
        files = delta.files(stored)
        if stage is not self._stage:
            data_files.remove(table.name, [f for day in self._days.values() for f in day.files])
            self._days = {}
            self._stage = stage
        for name in stage.rows:
            paths = _paths_of_date(files, name)
            day = self._days.get(name)
            if day and day.compared == paths:
                continue
            if day:
                # The commit that named these has failed, so that nobody else knows of them.
                data_files.remove(table.name, day.files)
            day = self._days[name] = _Day(paths)
            stored_rows = None
            if paths:
                stored_rows = as_rows(table, pl.scan_delta(stored).filter(pl.col(DATE) == name))
            for rows, belongs in stage.buckets(name):
                rows = duplicates.drop_repeated(rows, table.key)
                if stored_rows is not None:
                    times = rows[table.time]
                    near = pl.col(table.time).is_between(times.min(), times.max())
                    keys = stored_rows.filter(near).filter(belongs).select(table.key)
                    rows = duplicates.drop_stored(rows, keys.collect(engine="streaming"), table.key)
                if not rows.is_empty():
                    day.files.append(data_files.put(table.name, {DATE: str(name)}, rows))

    def commit(self, stored: DeltaTable) -> Accounts | None:
        """Commit the load on exactly `stored`'s version; None if another writer was faster."""
        table = self._table
        files = [file for day in self._days.values() for file in day.files]
        version = stored.version() + 1
        newest = None
        progress: dict[str, int] = {}
        if self._origin.source_name is not None:
            now = int(time.time() * 1000)
            newest, progress = clocks.progress(
                stored, self._origin.source_name, self._newest_hours, now
            )
        accounts = Accounts(
            **self._intake.counts(kept=sum(file.rows for file in files)),
            table=table.name,
            kind=self._origin.kind,
            source=self._origin.source,
            sha256=self._origin.sha256,
            source_name=self._origin.source_name,
            newest=newest,
            mapping=self._origin.mapping,
            version=version,
        )
        for name, (_, after) in self._origin.progress.items():
            if after is None:
                after = version
            progress[name] = after
        metadata = {"load": self._id, "accounts": accounts.model_dump_json()}
        if self._rejects or self._origin.replaces:
            rejects = self._rejects or []
            metadata |= quarantine.intent(stored, table, rejects, self._origin.replaces)
            progress[quarantine.newest_id(table)] = version
        try:
            delta.commit(stored, files, progress, metadata)
        except CommitFailedError:
            # A lost answer of the storage looks like a lost race.
            if delta.commits_metadata(table.name, [version])[0].get("load") != self._id:
                return None
        return accounts


def _paths_of_date(files: pl.DataFrame, name: date) -> frozenset[str]:
    """Paths of the files of one date, among the `files` of a table."""
    if files.is_empty():
        return frozenset()
    return frozenset(files.filter(pl.col(f"partition.{DATE}") == name)["path"])


def as_rows(table: Table, stored: pl.LazyFrame) -> pl.LazyFrame:
    """Columns and types of the table, from what Delta has stored.

    Columns that the table lacks are null.
    """
    lacking = set(table.dtypes) - set(stored.collect_schema())
    stored = stored.with_columns(pl.lit(None).alias(name) for name in lacking)
    return stored.select(pl.col(name).cast(dtype) for name, dtype in table.dtypes.items())
