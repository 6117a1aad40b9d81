"""Lines on their way into a table, spooled to disk by date, in bounded memory."""

import fcntl
import math
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import date
from pathlib import Path

import polars as pl

from kreislauf import full_disk
from kreislauf.settings import settings
from models.records import RawPart
from models.table import Table

DATE = "event_date"
"""Column by which tables are partitioned."""
BUCKET = "_bucket"
"""Column of the number of a bucket, while rows are dealt out."""
BUCKET_ROWS = 1_000_000
"""Rows of a date, about, that are searched for duplicates in one go."""
DEALT_ROWS = 400_000
"""Rows that are dealt out to buckets together."""
BATCH_BYTES = 32 << 20
"""Bytes of lines that are decoded and validated together."""
BATCH_LINES = 200_000
"""Lines with which a batch is full: a bad line takes a kilobyte, however short it is."""
LOCK = "lock"
"""Name of the file in a load's folder that the load holds locked."""


@contextmanager
def spool() -> Iterator[Path]:
    """A folder of this load's own, on disk below KREISLAUF_HOME.

    Folders of killed loads are removed. Raises DiskFull, also for what is done in the folder.
    """
    root = settings().home / "spool"
    root.mkdir(parents=True, exist_ok=True)
    for orphan in root.glob("load-*"):
        with suppress(FileNotFoundError, BlockingIOError), (orphan / LOCK).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(orphan)
    # The folder gets the name that others look for when it is locked.
    new = Path(tempfile.mkdtemp(prefix="new-", dir=root))
    folder = new.with_name(new.name.replace("new-", "load-"))
    with (new / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        new.rename(folder)
        try:
            with full_disk.named({root: "KREISLAUF_HOME"}):
                yield folder
        finally:
            shutil.rmtree(folder)


def batches(raws: Iterable[RawPart]) -> Iterator[list[RawPart]]:
    """Raw lines, or rows, in lists of about `BATCH_BYTES` or `BATCH_LINES`."""
    batch: list[RawPart] = []
    for raw in raws:
        batch.append(raw)
        size = sum(member.size for member in batch)
        if size >= BATCH_BYTES or sum(map(len, batch)) >= BATCH_LINES:
            yield batch
            batch = []
    if batch:
        yield batch


def date_of(time: pl.Expr) -> pl.Expr:
    """The date (UTC) of a time in ms, by which tables are partitioned."""
    return pl.from_epoch(time, "ms").dt.date()


class Stage:
    """Validated rows of one load in `folder`, one Arrow file for each date of each batch."""

    def __init__(self, table: Table, folder: Path) -> None:
        self._table = table
        self._folder = folder
        self._batches = 0
        self.rows: Counter[date] = Counter()
        """Rows by date (UTC) of the event, duplicates included."""
        self._buckets: dict[date, list[Path]] = {}

    def add(self, rows: pl.DataFrame) -> None:
        """Spool a batch."""
        self._batches += 1
        dated = rows.with_columns(date_of(pl.col(self._table.time)).alias(DATE))
        by_date = dated.partition_by(DATE, as_dict=True, include_key=False, maintain_order=True)
        for (day,), rows_of_day in by_date.items():
            folder = self._folder / str(day)
            folder.mkdir(exist_ok=True)
            rows_of_day.write_ipc(folder / f"{self._batches:06}.arrow", compression="uncompressed")
            self.rows[day] += rows_of_day.height

    def deal_out(self) -> None:
        """Once all batches are spooled, deal large dates out to buckets of about BUCKET_ROWS rows.

        Duplicates share date and group, and so the bucket: a bucket can be searched in memory.
        """
        for day, rows in self.rows.items():
            folder = self._folder / str(day)
            count = math.ceil(rows / BUCKET_ROWS)
            self._buckets[day] = [folder]
            if count > 1:
                self._buckets[day] = [folder / f"bucket-{number}" for number in range(count)]
                for bucket in self._buckets[day]:
                    bucket.mkdir()
                files = sorted(folder.glob("*.arrow"))
                step = math.ceil(len(files) / count)
                for first in range(0, len(files), step):
                    mapped = [pl.read_ipc(file) for file in files[first : first + step]]
                    few = pl.concat(mapped, rechunk=False)
                    write_buckets(few, self._table.group, self._buckets[day], f"{first:06}")
                for file in files:
                    file.unlink()

    def buckets(self, day: date) -> Iterator[tuple[pl.DataFrame, pl.Expr]]:
        """The rows of `day`, bucket after bucket, and which rows of that day belong to it."""
        folders = self._buckets[day]
        for number, folder in enumerate(folders):
            if any(folder.glob("*.arrow")):
                belongs = _bucket_number(self._table.group, len(folders)) == number
                yield pl.scan_ipc(folder / "*.arrow").collect(), belongs


def write_buckets(rows: pl.DataFrame, column: str, buckets: Sequence[Path], name: str) -> None:
    """Write rows to the folders `buckets`, as files whose names begin with `name`; equal values of
    a column share a bucket."""
    number = _bucket_number(column, len(buckets)).alias(BUCKET)
    # Dealing out takes a few times the memory of what is dealt.
    for part, some in enumerate(rows.iter_slices(DEALT_ROWS)):
        by_bucket = some.with_columns(number).partition_by(
            BUCKET, as_dict=True, include_key=False, maintain_order=True
        )
        for (position,), rows_of_bucket in by_bucket.items():
            path = buckets[position] / f"{name}-{part:03}.arrow"
            rows_of_bucket.write_ipc(path, compression="uncompressed")


def read(folder: Path) -> pl.DataFrame | None:
    """All rows that were dealt out to a folder; None if there are none."""
    if not any(folder.glob("*.arrow")):
        return None
    return pl.scan_ipc(folder / "*.arrow").collect()


def _bucket_number(column: str, count: int) -> pl.Expr:
    return pl.col(column).hash() % count
