"""The lake: every raw line ends as validated rows, a reject with its reason, a duplicate, or a counted blank."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import polars as pl

from models.spec import Raw, Table
from tasks.lake import delta, quarantine, staging
from tasks.lake.accounts import Accounts, Counts, Reason, total
from tasks.lake.book import ALARMS, alarm, distrust, distrusted, note, noted, settle_alarms
from tasks.lake.delta import LakeError, LakeUnreachable
from tasks.lake.landing import Origin, Overtaken, Progress, as_rows, land
from tasks.lake.quarantine import rejects, settle
from tasks.lake.staging import DATE, FEW, Intake, TooManyRejects, date_of

__all__ = [
    "ALARMS", "FEW", "Accounts", "Counts", "LakeError", "LakeUnreachable", "Origin", "Overtaken", "Progress", "Reason",
    "TooManyRejects", "alarm", "distrust", "distrusted", "note", "noted", "rejects", "settle", "settle_alarms", "total",
]  # fmt: skip


class RawFile(Protocol):
    """What `load_file` needs of `source.RawFile`."""

    path: str
    stamp: str

    @property
    def sha256(self) -> str: ...
    def chunks(self) -> Iterator[Raw]: ...


def load_file(table: Table, file: RawFile, max_reject_share: float = 1.0) -> Accounts:
    """Load a raw file, exactly once: neither the same path unchanged nor the same content is loaded again.

    Raises TooManyRejects, LakeUnreachable, and what reading the file raises; nothing of it is visible then.
    """
    seen = f"{table.name}/seen/{file.stamp}"
    if before := _loaded(table, seen):
        settle(table)
        return before

    def origin() -> Origin:
        progress: Progress = {f"{table.name}/{file.sha256}": (None, None), seen: (None, None)}
        return Origin("file", file.path, progress, file.sha256)

    try:
        return load(table, file.chunks(), origin, max_reject_share)
    except Overtaken:
        before = _loaded(table, f"{table.name}/{file.sha256}")
        assert before is not None
        return before


def load(table: Table, raws: Iterable[Raw], origin: Callable[[], Origin], max_reject_share: float = 1.0) -> Accounts:
    """Load lines in bounded memory: one commit, or nothing. `origin` is called when all have been read.

    Raises Overtaken if the table's progress is not the one that `origin` starts from, TooManyRejects if more than
    `max_reject_share` of the lines (and at least FEW) are bad, LakeUnreachable if the storage does not answer.
    """
    settle(table)
    with staging.spool() as folder:
        intake = Intake(table, folder)
        for batch in staging.batches(raws):
            intake.add(batch)
        intake.check(max_reject_share)
        with delta.answering(table.name):
            accounts = land(table, intake, origin())
    settle(table)
    return accounts


def replay(table: Table, source: str, sha256: str | None) -> Accounts:
    """Judge the rejects of one source again, by today's rules: lines that pass become rows, the others stay.

    `sha256` tells files of the same path apart; streams have none. Raises Overtaken if another replay was faster.
    """
    settle(table)
    lines = quarantine.lines_of(table).filter(pl.col("source") == source, pl.col("sha256").eq_missing(pl.lit(sha256)))
    last = lines.select(pl.col("line").max()).collect().item()
    if last is None:
        raise LakeError(f"Nothing of {source} ({sha256}) is in the quarantine of table {table.name}.")
    counter = f"{table.name}/replays"
    # What a stream adds meanwhile has higher line numbers.
    quoted = source.replace("'", "''")
    which = f"sha256 = '{sha256}'" if sha256 else "sha256 IS NULL"
    replaces = f"\"table\" = '{table.name}' AND source = '{quoted}' AND {which} AND line <= {last}"
    origin = Origin("replay", source, {counter: (progress(table, [counter])[counter], None)}, sha256, replaces)
    batches = lines.select("line", "raw").collect_batches(chunk_size=10_000)
    raws = (Raw.of(source, batch["raw"].to_list(), batch["line"].to_numpy()) for batch in batches)
    return load(table, raws, lambda: origin)


def progress(table: Table, ids: Sequence[str]) -> dict[str, int | None]:
    """How far the sources with these transaction ids have been loaded; None: not at all."""
    found = delta.find(table.name)
    return {name: found.transaction_version(name) if found else None for name in ids}


def watermark(table: Table) -> int | None:
    """Newest event time in `table`, ms since 1970 UTC; None if it has no rows."""
    found = delta.find(table.name)
    files = delta.files(found) if found else pl.DataFrame()
    return None if files.is_empty() else files[f"max.{table.time}"].max()  # type: ignore[return-value]


def version(table: Table) -> int:
    """Newest version of `table`. Raises LakeError if it does not exist."""
    return delta.at(table.name, None).version()


def scan(
    table: Table,
    version: int | None = None,
    start: int | None = None,
    end: int | None = None,
    without: Sequence[tuple[int, int]] = (),
) -> pl.LazyFrame:
    """Rows with `start` <= time < `end` (ms since 1970 UTC), in any order, at a version (newest: None).

    Groups with a row in one of the stretches `without` (both ends inclusive), as `distrusted` gives them, are left out.
    Columns that the table did not have at that version are null. Raises LakeError if there is no such version; collect
    under `reading`, for what the storage and the values may raise.
    """
    rows = pl.scan_delta(delta.at(table.name, version))
    if start is not None:
        rows = rows.filter(pl.col(table.time) >= start, pl.col(DATE) >= date_of(pl.lit(start)))
    if end is not None:
        rows = rows.filter(pl.col(table.time) < end, pl.col(DATE) <= date_of(pl.lit(end)))
    rows = as_rows(table, rows)
    touched = [
        rows.filter(pl.col(table.time).is_between(first, last)).select(table.group)
        for first, last in without
        if (start is None or last >= start) and (end is None or first < end)
    ]
    return rows.join(pl.concat(touched), on=table.group, how="anti") if touched else rows


@contextmanager
def reading(table: Table) -> Iterator[None]:
    """What goes wrong while rows of `scan` are collected becomes LakeError or LakeUnreachable."""
    try:
        with delta.answering(table.name):
            yield
    except pl.exceptions.InvalidOperationError as error:
        what = str(error).splitlines()[0]
        raise LakeError(f"Table {table.name} holds values that this model type does not know: {what}.") from error


def read(
    table: Table,
    version: int | None = None,
    start: int | None = None,
    end: int | None = None,
    without: Sequence[tuple[int, int]] = (),
) -> pl.DataFrame:
    """The rows of `scan`, sorted by group and time."""
    with reading(table):
        found = scan(table, version, start, end, without).collect()
    return found.sort(table.order)


def heights(table: Table) -> pl.DataFrame:
    """Rows of each date, oldest first: columns date, rows; from the files' statistics, without reading them."""
    files = delta.files(delta.at(table.name, None))
    return files.group_by(date=pl.col(f"partition.{DATE}")).agg(rows=pl.col("num_records").sum()).sort("date")


def rebuild(
    table: Table, version: int, watermark: int, expected: str, without: Sequence[tuple[int, int]] = ()
) -> pl.DataFrame:
    """The rows up to `watermark` at a version but `without`, bit for bit the same as when their digest was taken.

    Raises LakeError if they are not, or are not there any more.
    """
    rows = read(table, version, end=watermark + 1, without=without)
    if (found := digest(rows)) != expected:
        raise LakeError(
            f"Version {version} of table {table.name} up to {watermark} has the digest {found[:12]} and not "
            f"{expected[:12]}: these are not the rows that a model learnt from. Somebody has changed the lake's files "
            "or the model type's columns; restore them, or train a new version."
        )
    return rows


def digest(rows: pl.DataFrame) -> str:
    """Hex SHA-256 of the rows in their order; columns that are null throughout do not count."""
    sha = hashlib.sha256()
    for column in sorted(name for name in rows.columns if rows[name].null_count() < rows.height):
        sha.update(column.encode() + b"\0")
        values = rows[column].cast(pl.String) if isinstance(rows.schema[column], pl.Enum) else rows[column]
        for chunk in values.to_frame().iter_slices(100_000):
            sha.update(chunk.write_csv(include_header=False, null_value="\0").encode())
    return sha.hexdigest()


def rejected_shares(table: Table) -> pl.DataFrame:
    """Of each load, oldest first, the table's version that it made and the share of its lines that were rejected:
    columns version, share, lines."""
    loads = [load for load in history(table) if load.kind != "replay" and load.lines_in]
    rows = [(load.version, load.lines_rejected / load.lines_in, load.lines_in) for load in loads]
    return pl.DataFrame(rows, {"version": pl.Int64, "share": pl.Float64, "lines": pl.Int64}, orient="row")


def history(table: Table) -> list[Accounts]:
    """Accounts of all loads of `table`, oldest first."""
    commits = delta.at(table.name, None).history()
    return [Accounts.model_validate_json(c["accounts"]) for c in reversed(commits) if "accounts" in c]


def _loaded(table: Table, name: str) -> Accounts | None:
    """Accounts of the load that set a transaction id, if one has."""
    found = delta.find(table.name)
    version = found.transaction_version(name) if found else None
    if version is None:
        return None
    accounts = Accounts.model_validate_json(delta.said(table.name, version)["accounts"])
    return accounts.model_copy(update={"already_loaded": True})
