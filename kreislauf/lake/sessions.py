"""Sessions of a load that has users and no sessions: cut where a user is inactive for a gap.

A row joins the session of its user whose rows reach it, each at most the gap after the one before,
be they of the load or of the table. What a session is called follows from its first row.
"""

import math
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
from deltalake import DeltaTable

from kreislauf.lake import delta, staging
from kreislauf.lake.staging import DATE, Stage, date_of
from models import session_names
from models.table import Table

USER = "_user"
"""Column of the user, beside the group column with the session."""
STORED_ROWS = 200_000
"""Rows of the table that are looked at together."""
PLACES = 1 << 24
"""Size of the table of flags that tells which stored rows may be near one of the load."""
PRIME = np.uint64(0x9E3779B97F4A7C15)
"""An odd number with which consecutive numbers become places far from each other."""


class SessionStage:
    """The rows of one load, whose group column has users, with their sessions instead.

    All is on disk, and memory is bounded: rows are dealt out by user into buckets of about
    BUCKET_ROWS. A user's rows in a load have to fit in memory.
    """

    def __init__(self, table: Table, folder: Path, users: Stage, gap: int) -> None:
        """`users` has the rows of the load with users; `gap` is in ms; `folder` is the load's."""
        self._table = table
        self._folder = folder
        self._gap = gap
        self._users = users
        self._windows: list[tuple[int, int]] = []
        """Stretches of time (ms, both ends inclusive) with the rows and a gap around them."""
        self._may_be_near = np.zeros(PLACES, bool)
        self._buckets: list[Path] = []
        self._compared: frozenset[str] = frozenset()
        """The table's files among which sessions were looked for that rows join."""
        self._stage: Stage | None = None

    def deal_out(self) -> None:
        """Deal the rows with users out to buckets, and note when, and whose they are.

        To be called once, when their own stage is dealt out.
        """
        count = math.ceil(self._users.rows.total() / staging.BUCKET_ROWS)
        self._buckets = [self._folder / "users" / str(number) for number in range(max(count, 1))]
        for bucket in self._buckets:
            (bucket / "new").mkdir(parents=True)
            (bucket / "stored").mkdir()
        folders = [bucket / "new" for bucket in self._buckets]
        for day in self._users.rows:
            for number, (rows, _) in enumerate(self._users.buckets(day)):
                times = rows[self._table.time].to_numpy()
                places = _places(rows[self._table.group], times // self._gap, (-1, 0, 1))
                self._may_be_near[places] = True
                window = (int(times.min()) - self._gap, int(times.max()) + self._gap)
                self._windows = _joined([*self._windows, window])
                staging.write_buckets(rows, self._table.group, folders, f"{day}-{number:06}")

    def stage_at(self, stored: DeltaTable) -> Stage:
        """The rows with their sessions, as those of the table at this version make them.

        It is the same stage as before if the table has no other files in the rows' stretches of
        time. Otherwise sessions are made anew: others may have begun or reach further.
        """
        paths = self._paths(delta.files(stored))
        if self._stage is not None and paths == self._compared:
            return self._stage
        self._compared = paths
        for bucket in self._buckets:
            for path in (bucket / "stored").iterdir():
                path.unlink()
        if paths:
            self._deal_out_stored(stored)
        folder = self._folder / "sessions"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        self._stage = Stage(self._table, folder)
        for bucket in self._buckets:
            rows = staging.read(bucket / "new")
            if rows is not None:
                stored_rows = staging.read(bucket / "stored")
                self._stage.add(with_sessions(self._table, rows, stored_rows, self._gap))
        self._stage.deal_out()
        return self._stage

    def _paths(self, files: pl.DataFrame) -> frozenset[str]:
        """Paths of the files, among a table's, that may have rows near those of the load."""
        if files.is_empty():
            return frozenset()
        date = pl.col(f"partition.{DATE}")
        near = [date.is_between(_date(first), _date(last)) for first, last in self._windows]
        return frozenset(files.filter(pl.any_horizontal(pl.lit(False), *near))["path"])

    def _deal_out_stored(self, stored: DeltaTable) -> None:
        """Deal those rows of the table out to the buckets that may be near one of the load."""
        time = self._table.time
        folders = [bucket / "stored" for bucket in self._buckets]
        user = session_names.user(pl.col(self._table.group)).alias(USER)
        scanned = pl.scan_delta(stored)
        number = 0
        for first, last in self._windows:
            near = scanned.filter(
                pl.col(DATE).is_between(_date(first), _date(last)),
                pl.col(time).is_between(first, last),
            )
            columns = near.select(self._table.group, time)
            for batch in columns.collect_batches(chunk_size=STORED_ROWS):
                rows = batch.with_columns(user).filter(pl.col(USER).is_not_null())
                places = _places(rows[USER], rows[time].to_numpy() // self._gap, (0,))
                rows = rows.filter(pl.Series(self._may_be_near[places]))
                staging.write_buckets(rows, USER, folders, f"{number:06}")
                number += 1


def with_sessions(
    table: Table, rows: pl.DataFrame, stored: pl.DataFrame | None, gap: int
) -> pl.DataFrame:
    """Rows whose group column has users, with their sessions there instead, by user and time.

    `stored` are rows of the table that are near: columns of user, session and time. Of one user,
    a row joins the session of the last stored row before it, or else of the first one after it,
    if rows lead there that are at most `gap` ms apart. Rows without either are a new session.
    """
    rows = rows.rename({table.group: USER}).with_columns(pl.lit(None, pl.String).alias(table.group))
    if stored is not None:
        rows = pl.concat([stored, rows], how="diagonal")
    # The order of rows with the same user and time is kept: the stored one is the first.
    rows = rows.sort(USER, table.time, maintain_order=True)
    is_stored = rows[table.group].is_not_null().to_numpy()
    source = _sources(rows[USER], rows[table.time], is_stored, gap)
    is_source = np.zeros(rows.height, bool)
    is_source[source] = True
    own = session_names.name(pl.col(USER), pl.col(table.time))
    names = rows.filter(pl.Series(is_source)).select(pl.coalesce(table.group, own)).to_series()
    sessions = names.gather(np.cumsum(is_source)[source] - 1)
    named = rows.with_columns(sessions.alias(table.group)).filter(pl.Series(~is_stored))
    return named.select(table.dtypes.names())


def _sources(users: pl.Series, times: pl.Series, is_stored: np.ndarray, gap: int) -> np.ndarray:
    """Position of the row that gives each row its session; rows are in order of user and time.

    It is the last stored row up to it in its run, or else the first stored one after it in the run,
    or else the first of the run. A run has rows of one user that are each at most `gap` ms apart.
    """
    begins = ((users != users.shift()) | (times - times.shift() > gap)).fill_null(True).to_numpy()
    run = np.cumsum(begins)
    first = np.flatnonzero(begins)[run - 1]
    last = np.append(np.flatnonzero(begins)[1:], len(run))[run - 1] - 1
    place = np.arange(len(run))
    before = np.maximum.accumulate(np.where(is_stored, place, -1))
    after = np.minimum.accumulate(np.where(is_stored, place, len(run))[::-1])[::-1]
    source = np.where(after <= last, after, first)
    return np.where(before >= first, before, source)


def _places(users: pl.Series, slots: np.ndarray, offsets: Sequence[int]) -> np.ndarray:
    """Places in the table of flags of users in slots of time, int64, and in those beside them.

    Two times that are at most a gap apart are in the same slot, or in neighbours.
    """
    hashes = users.hash().to_numpy()
    places = [hashes ^ ((slots + offset).astype(np.uint64) * PRIME) for offset in offsets]
    return np.concatenate(places) % np.uint64(PLACES)


def _date(time: int) -> pl.Expr:
    return date_of(pl.lit(time))


def _joined(windows: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Stretches of time in order, with those joined that overlap."""
    joined: list[tuple[int, int]] = []
    for first, last in sorted(windows):
        if joined and first <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], last))
        else:
            joined.append((first, last))
    return joined
