"""Delta tables. Every raw line ends as validated rows, a reject with its reason, a duplicate, or a counted blank.

A commit is made on exactly the version that was read or not at all, so whoever loses a race reads again and decides
again. A file's transaction id is stored in the commit that loads it: no file is loaded twice.
"""

import json
import re
from collections.abc import Callable, Sequence
from typing import TypeVar

import polars as pl
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from pydantic import BaseModel, ConfigDict, model_validator

from models.spec import Table
from tasks.settings import settings
from tasks.validate import Judged, judge

REJECTS = "rejects"
REJECT = pl.Schema(
    {
        "table": pl.String(),
        "source": pl.String(),
        "sha256": pl.String(),
        "line": pl.Int64(),
        "reason": pl.String(),
        "raw": pl.Binary(),
        "rows": pl.Int64(),
    }
)
ATTEMPTS = 50
T = TypeVar("T")
# Plain http is only spoken if AWS_ENDPOINT_URL says so; the rest makes an unreachable S3 fail in seconds, not minutes.
S3_OPTIONS = {"aws_allow_http": "true", "connect_timeout": "3s", "retry_timeout": "5s"}
KEEP_HISTORY = {"delta.enableExpiredLogCleanup": "false"}


class LakeError(ValueError):
    """A table is not there, or holds other things than asked for; the message says what to do."""


class LakeUnreachable(LakeError, ConnectionError):
    """The lake's storage does not answer: the same call may succeed later."""


class Counts(BaseModel):
    """Where lines and rows went."""

    model_config = ConfigDict(frozen=True)

    lines_in: int
    lines_loaded: int
    lines_rejected: int
    lines_blank: int
    rows_in: int
    rows_kept: int
    rows_rejected: int
    """Rows of the rejected lines; 1 for a line that did not decode."""
    rows_duplicate: int


class Accounts(Counts):
    """The counts of one file. Raises pydantic's ValidationError if they do not balance."""

    table: str
    source: str
    sha256: str
    version: int
    """The table's version that this load made."""
    already_loaded: bool = False
    """The file was in the table before: nothing was written, these are the accounts of then."""

    @model_validator(mode="after")
    def _balance(self) -> "Accounts":
        if self.lines_in != self.lines_loaded + self.lines_rejected + self.lines_blank:
            raise ValueError(f"the lines of {self.source} do not balance; nothing was loaded, please report this")
        if self.rows_in != self.rows_kept + self.rows_rejected + self.rows_duplicate:
            raise ValueError(f"the rows of {self.source} do not balance; nothing was loaded, please report this")
        return self


def load(table: Table, source: str, sha256: str, lines: Sequence[bytes]) -> Accounts:
    """Load one file into `table`, exactly once however often it is called; `sha256` identifies the file.

    Rejects are written before rows, so a crash in between loses nothing, and the next call repairs what it left.
    Raises LakeUnreachable if the storage does not answer.
    """
    if before := _loaded(_open(table.name), table, sha256):
        return before
    judged = judge(table, lines)
    rejects = judged.rejected.select(
        pl.lit(table.name).alias("table"), pl.lit(source).alias("source"), pl.lit(sha256).alias("sha256"), pl.all()
    )
    _retry_lost_races(lambda: _write_rejects(_transaction(table, sha256), rejects.match_to_schema(REJECT)))
    return _retry_lost_races(lambda: _write_rows(table, source, sha256, len(lines), judged))


def watermark(table: Table) -> int | None:
    """Newest event time in `table`, ms since 1970 UTC; None if it has no rows."""
    delta = _open(table.name)
    return None if delta is None else pl.scan_delta(delta).select(pl.col(table.time).max()).collect().item()


def version(table: Table) -> int:
    """Newest version of `table`. Raises LakeError if it does not exist."""
    return _existing(table).version()


def read(table: Table, version: int | None = None, start: int | None = None, end: int | None = None) -> pl.DataFrame:
    """Rows with `start` <= time < `end` (ms since 1970 UTC), sorted by group and time, at a version (newest: None).

    Raises LakeError if the table or the version does not exist.
    """
    rows = pl.scan_delta(_existing(table, version))
    if start is not None:
        rows = rows.filter(pl.col(table.time) >= start)
    if end is not None:
        rows = rows.filter(pl.col(table.time) < end)
    return rows.collect().sort(list(dict.fromkeys((table.group, table.time, *table.key))))


def rejects(table: Table, files: Sequence[str] | None = None) -> pl.DataFrame:
    """Quarantined lines of `table` (of the files with these sha256 only): columns of REJECT, in the files' order."""
    delta = _open(REJECTS)
    if delta is None:
        return REJECT.to_frame()
    wanted = pl.col("table") == table.name
    if files is not None:
        wanted &= pl.col("sha256").is_in(files)
    return pl.scan_delta(delta).filter(wanted).collect().sort("source", "sha256", "line")


def reasons(rejected: pl.DataFrame) -> list[tuple[str, int]]:
    """Reasons in `rejected` and how many lines have each, most frequent first; positions in a line are left out."""
    general = pl.col("reason").str.replace_all(r"\[\d+\]", "[...]").str.replace_all(r" \(byte \d+\)", "")
    return rejected.group_by(general).len().sort("len", "reason", descending=[True, False]).rows()


def _write_rejects(transaction: str, rejected: pl.DataFrame) -> None:
    """Make the rejects of one file exactly `rejected`, whatever an interrupted load, maybe of older code, left."""
    # Another writer may win the creation and commit this very file: look for it in what `_create` returns, too.
    delta = _open(REJECTS) or (None if rejected.is_empty() else _create(REJECTS, REJECT))
    if delta is None:
        return
    if delta.transaction_version(transaction) is None:
        if not rejected.is_empty():
            _commit(delta, rejected, transaction)
        return
    table, sha256 = transaction.split("/")
    of_file = (pl.col("table") == table) & (pl.col("sha256") == sha256)
    stored = pl.scan_delta(delta).filter(of_file).collect().sort("line")
    if not stored.drop("source").equals(rejected.drop("source")):
        _commit(delta, rejected, transaction, replace=f"\"table\" = '{table}' AND sha256 = '{sha256}'")


def _write_rows(table: Table, source: str, sha256: str, lines_in: int, judged: Judged) -> Accounts:
    """Append the rows that are new, with the accounts, in one commit; nothing if the file has been loaded meanwhile."""
    delta = _open(table.name) or _create(table.name, table.schema.empty().schema)
    if before := _loaded(delta, table, sha256):
        return before
    first = judged.rows.select(pl.struct(table.key).is_first_distinct()).to_series()
    once = judged.rows.filter(first)
    known = _known(delta, table, once)
    fresh = once.join(known, on=table.key, how="anti", nulls_equal=True, maintain_order="left")
    accounts = Accounts(
        table=table.name,
        source=source,
        sha256=sha256,
        lines_in=lines_in,
        lines_loaded=judged.lines_loaded,
        lines_rejected=judged.rejected.height,
        lines_blank=judged.lines_blank,
        rows_in=judged.rows_in,
        rows_kept=fresh.height,
        rows_rejected=int(judged.rejected["rows"].sum()),
        rows_duplicate=int((~first).sum()) + once.join(known, on=table.key, how="semi", nulls_equal=True).height,
        version=delta.version() + 1,
    )
    _commit(delta, fresh, _transaction(table, sha256), {"accounts": accounts.model_dump_json()})
    return accounts


def _known(delta: DeltaTable, table: Table, rows: pl.DataFrame) -> pl.DataFrame:
    """Keys in the table that `rows` may repeat."""
    stored = pl.scan_delta(delta)
    if table.time in table.key:
        stored = stored.filter(pl.col(table.time).is_between(rows[table.time].min(), rows[table.time].max()))
    return stored.select(table.key).collect()


def _commit(
    delta: DeltaTable, rows: pl.DataFrame, transaction: str, metadata: dict | None = None, replace: str | None = None
) -> None:
    """Commit on exactly `delta`'s version. Raises CommitFailedError if another writer was faster."""
    properties = CommitProperties(
        custom_metadata=metadata,
        app_transactions=[Transaction(transaction, delta.version() + 1)],
        max_commit_retries=0,
    )
    if replace is None:
        write_deltalake(delta, rows, mode="append", commit_properties=properties)
    else:
        write_deltalake(delta, rows, mode="overwrite", predicate=replace, commit_properties=properties)


def _retry_lost_races(step: Callable[[], T]) -> T:
    """The result of `step`, which is run again, on newer versions, while other writers are faster."""
    for _ in range(ATTEMPTS - 1):
        try:
            return step()
        except CommitFailedError:
            continue
    return step()


def _transaction(table: Table, sha256: str) -> str:
    return f"{table.name}/{sha256}"


def _loaded(delta: DeltaTable | None, table: Table, sha256: str) -> Accounts | None:
    """Accounts of the commit that loaded a file, if one has."""
    version = delta.transaction_version(_transaction(table, sha256)) if delta else None
    if version is None:
        return None
    # deltalake's history() labels commits wrongly from an earlier version on, and reads every later one.
    log = f"{_uri(table.name)}/_delta_log/{version:020}.json"
    actions = pl.scan_lines(log, storage_options=_options(log)).collect().to_series()
    commit = next(action["commitInfo"] for action in map(json.loads, actions) if "commitInfo" in action)
    return Accounts.model_validate_json(commit["accounts"]).model_copy(update={"already_loaded": True})


def _uri(name: str) -> str:
    return f"{settings().lake.rstrip('/')}/{name}"


def _options(uri: str) -> dict[str, str] | None:
    return S3_OPTIONS if uri.startswith("s3://") else None


def _open(name: str) -> DeltaTable | None:
    """The table called `name`, or None if there is none. Raises LakeUnreachable."""
    uri = _uri(name)
    try:
        return DeltaTable(uri, storage_options=_options(uri))
    except TableNotFoundError:
        return None
    except OSError as error:
        raise LakeUnreachable(
            f"The lake at {uri} does not answer ({_plain(error)}). "
            "Check KREISLAUF_LAKE, the AWS_* variables and the network."
        ) from error


def _plain(error: Exception) -> str:
    """Delta's coloured many-line message in one line."""
    return " ".join(re.sub(r"\x1b\[\d*m|↳", "", str(error)).split())


def _create(name: str, schema: pl.Schema) -> DeltaTable:
    uri = _uri(name)
    return DeltaTable.create(
        uri,
        schema,
        mode="ignore",
        configuration=KEEP_HISTORY,
        storage_options=_options(uri),
        commit_properties=CommitProperties(max_commit_retries=0),
    )


def _existing(table: Table, version: int | None = None) -> DeltaTable:
    delta = _open(table.name)
    if delta is None:
        raise LakeError(f"There is no table {table.name} in {settings().lake} yet. Ingest raw files first.")
    if version is None:
        return delta
    try:
        delta.load_as_version(version)
    except DeltaError as error:
        raise LakeError(f"Table {table.name} has no version {version}; the newest is {delta.version()}.") from error
    return delta
