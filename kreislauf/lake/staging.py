"""Lines on their way into a table: judged, spooled to disk by date, then freed of duplicates; all
in bounded memory."""

import fcntl
import math
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl

from kreislauf.lake.accounts import Counts, most_frequent
from kreislauf.lake.delta import LakeError
from kreislauf.lake.validate import judge
from kreislauf.settings import settings
from models.table import RawLines, Table

DATE = "event_date"
BUCKET = "_bucket"
BUCKET_ROWS = 1_000_000
BATCH_BYTES = 32 << 20
LOCK = "lock"
FEW = 20
"""So many rejected lines never stop a load, whatever their share."""


@contextmanager
def spool() -> Iterator[Path]:
    """A folder of this load's own, on disk below KREISLAUF_HOME; those of killed loads are
    removed."""
    root = settings().home / "spool"
    root.mkdir(parents=True, exist_ok=True)
    for left in root.glob("load-*"):
        with suppress(FileNotFoundError, BlockingIOError), (left / LOCK).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left)
    # It gets the name that is looked for when it is locked.
    new = Path(tempfile.mkdtemp(prefix="new-", dir=root))
    folder = new.with_name(new.name.replace("new-", "load-"))
    with (new / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        new.rename(folder)
        try:
            yield folder
        finally:
            shutil.rmtree(folder)


class TooManyRejects(LakeError):
    """The source is broken: nothing of it was loaded."""

    def __init__(self, message: str, counts: Counts) -> None:
        super().__init__(message)
        self.counts = counts


class Stage:
    """Validated rows of one load in `folder`, one Arrow file for each date of each batch."""

    def __init__(self, table: Table, folder: Path) -> None:
        self._table = table
        self._folder = folder
        self._batches = 0
        self.rows: Counter[date] = Counter()
        """Rows by date (UTC) of the event, duplicates included."""

    def add(self, rows: pl.DataFrame) -> None:
        """Spool a batch."""
        self._batches += 1
        dated = rows.with_columns(date_of(pl.col(self._table.time)).alias(DATE))
        for (day,), part in dated.partition_by(
            DATE, as_dict=True, include_key=False, maintain_order=True
        ).items():
            folder = self._folder / str(day)
            folder.mkdir(exist_ok=True)
            part.write_ipc(folder / f"{self._batches:06}.arrow", compression="uncompressed")
            self.rows[day] += part.height

    def fresh(self, day: date, stored: pl.LazyFrame | None) -> Iterator[pl.DataFrame]:
        """Rows of `day` without duplicates, of each other or of `stored` (rows of that day in the
        table).

        Memory is bounded by buckets of about BUCKET_ROWS rows: duplicates share date and group, and
        so the bucket.
        """
        folders = self._buckets(day)
        for bucket, folder in enumerate(folders):
            if not any(folder.glob("*.arrow")):
                continue
            part = _once(pl.scan_ipc(folder / "*.arrow").collect(), self._table.key)
            if stored is not None:
                time = pl.col(self._table.time)
                known = stored.filter(
                    time.is_between(part[self._table.time].min(), part[self._table.time].max())
                )
                known = known.filter(self._bucket(len(folders)) == bucket).select(self._table.key)
                part = _without(part, known.collect(engine="streaming"), self._table.key)
            if not part.is_empty():
                yield part

    def _bucket(self, count: int) -> pl.Expr:
        return pl.col(self._table.group).hash() % count

    def _buckets(self, day: date) -> list[Path]:
        """Folders with the rows of `day`, which are dealt out by group when they are too many for
        one."""
        folder = self._folder / str(day)
        count = math.ceil(self.rows[day] / BUCKET_ROWS)
        folders = [folder / f"bucket-{n}" for n in range(count)]
        if count == 1 or folders[0].exists():
            return folders if count > 1 else [folder]
        for bucket in folders:
            bucket.mkdir()
        files = sorted(folder.glob("*.arrow"))
        share = math.ceil(len(files) / count)
        for first in range(0, len(files), share):
            rows = pl.concat([pl.read_ipc(file) for file in files[first : first + share]])
            rows = rows.with_columns(self._bucket(count).alias(BUCKET))
            for (n,), part in rows.partition_by(
                BUCKET, as_dict=True, include_key=False, maintain_order=True
            ).items():
                part.write_ipc(folders[n] / f"{first:06}.arrow", compression="uncompressed")
        for file in files:
            file.unlink()
        return folders


class Intake:
    """Lines of one load, judged and spooled to disk."""

    def __init__(self, table: Table, folder: Path) -> None:
        self.table = table
        self.stage = Stage(table, folder)
        self.rejects = folder / "rejects"
        self.rejects.mkdir()
        self.lines: Counter[str] = Counter()
        self.rows: Counter[str] = Counter()
        self.reasons: Counter[tuple[str, str]] = Counter()

    def add(self, batch: Sequence[RawLines]) -> None:
        """Judge and spool some lines."""
        judged = judge(self.table, batch)
        self.stage.add(judged.rows)
        rejected = judged.rejected
        if not rejected.is_empty():
            rejected.write_ipc(
                self.rejects / f"{self.lines['in']:012}.arrow", compression="uncompressed"
            )
        self.lines.update(
            {"in": judged.lines_in, "blank": judged.lines_blank, "rejected": rejected.height}
        )
        self.rows.update({"in": judged.rows_in, "rejected": int(rejected["rows"].sum())})
        general = (
            pl.col("rule")
            .str.replace_all(r"\[\d+\]", "[...]")
            .str.replace_all(r" \(byte \d+\)", "")
        )
        for reason, rule, lines in rejected.group_by("reason", general).len().rows():
            self.reasons[reason, rule] += lines

    def counts(self, kept: int) -> dict:
        """Fields of Counts."""
        lines = self.lines
        rows = self.rows
        return {
            "lines_in": lines["in"],
            "lines_loaded": lines["in"] - lines["blank"] - lines["rejected"],
            "lines_rejected": lines["rejected"],
            "lines_blank": lines["blank"],
            "rows_in": rows["in"],
            "rows_kept": kept,
            "rows_rejected": rows["rejected"],
            "rows_duplicate": rows["in"] - rows["rejected"] - kept,
            "reasons": most_frequent(self.reasons),
        }

    def check(self, max_reject_share: float) -> None:
        """Raises TooManyRejects."""
        bad = self.lines["rejected"]
        share = self.lines["rejected"] / max(self.lines["in"], 1)
        if bad < FEW or share <= max_reject_share:
            return
        counts = Counts(**self.counts(self.rows["in"] - self.rows["rejected"]))
        why = "; ".join(f"{r.lines} lines: {r.reason}, {r.rule}" for r in counts.reasons[:3])
        raise TooManyRejects(
            f"{bad} of {self.lines['in']} lines ({share:.1%}) would be rejected, more than the limit of "
            f"{max_reject_share:.1%} ({why}). Nothing was loaded. Mend the source or the rules, "
            "or raise max_reject_share.",
            counts,
        )


def batches(raws: Iterable[RawLines]) -> Iterator[list[RawLines]]:
    """Raws in lists of about BATCH_BYTES."""
    batch: list[RawLines] = []
    for raw in raws:
        batch.append(raw)
        if sum(len(r.data) for r in batch) >= BATCH_BYTES:
            yield batch
            batch = []
    if batch:
        yield batch


def date_of(time: pl.Expr) -> pl.Expr:
    """The date (UTC) of a time in ms, by which tables are partitioned."""
    return pl.from_epoch(time, "ms").dt.date()


def _hash(rows: pl.DataFrame, key: tuple[str, ...]) -> pl.Series:
    return rows.select(pl.struct(key).hash()).to_series()


def _once(rows: pl.DataFrame, key: tuple[str, ...]) -> pl.DataFrame:
    """The first row of each key. Only rows whose hash occurs twice are compared: mostly none."""
    hashes = _hash(rows, key)
    ordered = hashes.sort()
    twice = ordered.filter(ordered == ordered.shift())
    if twice.is_empty():
        return rows
    suspects = hashes.is_in(twice.implode()).arg_true()
    return _without_positions(
        rows,
        suspects.filter(~rows[suspects].select(pl.struct(key).is_first_distinct()).to_series()),
    )


def _without(rows: pl.DataFrame, known: pl.DataFrame, key: tuple[str, ...]) -> pl.DataFrame:
    """Rows whose key is not in `known`, in their order."""
    suspects = _hash(rows, key).is_in(_hash(known, key).implode()).arg_true()
    if suspects.is_empty():
        return rows
    found = (
        rows[suspects]
        .with_columns(suspects.alias("_at"))
        .join(known, on=key, how="semi", nulls_equal=True)
    )
    return _without_positions(rows, found["_at"])


def _without_positions(rows: pl.DataFrame, positions: pl.Series) -> pl.DataFrame:
    keep = np.ones(rows.height, bool)
    keep[positions.to_numpy()] = False
    return rows.filter(pl.Series(keep))
