"""Delta Lake: Parquet files that become visible in a commit, on exactly the version that was read
or not at all."""

import io
import json
import re
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import deltalake
import fsspec
import polars as pl
from deltalake import CommitProperties, DeltaTable, Transaction, WriterProperties
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.transaction import AddAction
from pydantic import BaseModel, ConfigDict

from kreislauf.settings import settings

# Plain http is only spoken if AWS_ENDPOINT_URL says so; the rest makes an unreachable S3 fail in
# seconds, not minutes.
S3_OPTIONS = {"aws_allow_http": "true", "connect_timeout": "3s", "retry_timeout": "5s"}
# Old versions stay readable as long as their files do; `flows/tidy.py` decides about these.
KEEP_HISTORY = {
    "delta.enableExpiredLogCleanup": "false",
    "delta.logRetentionDuration": "interval 36500 days",
}
ROW_GROUP = 50_000
"""Rows of a file that are read in one go: readers hold some of these in memory, however large the
file is."""
ATTEMPTS = 50
"""So many races against other writers are lost before it is `too_busy`."""


class LakeError(ValueError):
    """A table is not there, or holds other things than asked for; the message says what to do."""


class LakeUnreachable(LakeError, ConnectionError):
    """The lake's storage does not answer: the same call may succeed later."""


def too_busy(name: str) -> LakeError:
    """The error of who has lost so many races."""
    return LakeError(
        f"Table {name} is too busy: {ATTEMPTS} times another writer was faster. Run again."
    )


class Part(BaseModel):
    """A Parquet file in a table's folder, which is part of the table once a commit says so."""

    model_config = ConfigDict(frozen=True)

    path: str
    """Below the table's folder."""
    size: int
    partition: dict[str, str]
    rows: int
    low: dict[str, int]
    """Smallest values of integer columns, and `high` the largest, by which readers skip files."""
    high: dict[str, int]

    def action(self) -> AddAction:
        """What the commit says of it."""
        stats = {
            "numRecords": self.rows,
            "minValues": self.low,
            "maxValues": self.high,
            "nullCount": {},
        }
        now = int(time.time() * 1000)
        return AddAction(self.path, self.size, self.partition, now, True, json.dumps(stats))


@contextmanager
def answering(name: str) -> Iterator[None]:
    """Whatever the libraries underneath raise when the storage does not answer becomes
    LakeUnreachable."""
    from botocore.exceptions import BotoCoreError

    try:
        yield
    except (CommitFailedError, TableNotFoundError, LakeError):
        raise
    except (OSError, BotoCoreError, DeltaError, pl.exceptions.ComputeError) as error:
        if (
            isinstance(error, DeltaError | pl.exceptions.ComputeError)
            and "object" not in str(error).lower()
        ):
            raise
        raise LakeUnreachable(
            f"The lake at {uri(name)} does not answer ({_plain(error)}). "
            "Check KREISLAUF_LAKE, the AWS_* variables and the network."
        ) from error


def uri(name: str) -> str:
    """Where a table is."""
    return f"{settings().lake.rstrip('/')}/{name}"


def options(address: str) -> dict[str, str] | None:
    """Storage options for an address in the lake, None for a folder."""
    return S3_OPTIONS if address.startswith("s3://") else None


def find(name: str) -> DeltaTable | None:
    """The newest version of a table, or None if there is none. Raises LakeUnreachable."""
    address = uri(name)
    try:
        with answering(name):
            return DeltaTable(address, storage_options=options(address))
    except TableNotFoundError:
        return None


def create(name: str, schema: pl.Schema, partition_by: str) -> DeltaTable:
    """The table, which is made if it is not there. Raises LakeUnreachable."""
    address = uri(name)
    with answering(name):
        return DeltaTable.create(
            address,
            stored(schema),
            mode="ignore",
            partition_by=[partition_by],
            configuration=KEEP_HISTORY,
            storage_options=options(address),
            commit_properties=CommitProperties(max_commit_retries=0),
        )


def stored(schema: pl.Schema) -> pl.Schema:
    """The schema as Delta keeps it: it knows no Enum."""
    return pl.Schema(
        {
            name: pl.String() if isinstance(dtype, pl.Enum) else dtype
            for name, dtype in schema.items()
        }
    )


def widen(delta: DeltaTable, schema: pl.Schema) -> bool:
    """Add the columns of `schema` that a table lacks, and say if there were any; its older rows
    have null there.

    Raises LakeError if a column's type is another one, CommitFailedError if another writer was
    faster.
    """
    have = pl.Schema(delta.schema())
    want = stored(schema)
    if wrong := [
        f"{c} is {have[c]}, not {want[c]}" for c in want if c in have and have[c] != want[c]
    ]:
        raise LakeError(
            f"Table {delta.table_uri} has other column types ({', '.join(wrong)}). Types cannot be changed in place: "
            "give the model type's table a new name and ingest the raw files into it."
        )
    new = {column: dtype for column, dtype in want.items() if column not in have}
    if new:
        fields = deltalake.Schema.from_arrow(pl.Schema(new)).fields
        delta.alter.add_columns(fields, commit_properties=CommitProperties(max_commit_retries=0))
    return bool(new)


def put(name: str, partition: Mapping[str, str], rows: pl.DataFrame) -> Part:
    """Write rows (of no partition column) as a file of a table, which nobody sees before a
    commit."""
    buffer = io.BytesIO()
    integers = rows.select(pl.selectors.integer())
    how = _parquet(rows.columns, integers.columns)
    rows.write_parquet(buffer, use_pyarrow=True, row_group_size=ROW_GROUP, pyarrow_options=how)
    folder = "/".join(f"{column}={value}" for column, value in partition.items())
    path = f"{folder}/part-{uuid.uuid4()}.parquet"
    with answering(name):
        fs, root = _filesystem(name)
        if "file" in fs.protocol:
            Path(root, folder).mkdir(parents=True, exist_ok=True)
        fs.pipe_file(f"{root}/{path}", buffer.getvalue())
    low, high = (integers.select(f).row(0, named=True) for f in (pl.all().min(), pl.all().max()))
    bounds = [{k: v for k, v in bound.items() if v is not None} for bound in (low, high)]
    return Part(
        path=path, size=buffer.tell(), partition=dict(partition), rows=rows.height, low=bounds[0], high=bounds[1]
    )  # fmt: skip


def _parquet(columns: Sequence[str], integers: Sequence[str]) -> dict:
    """Options of pyarrow's writer: without Arrow's schema, so that an Enum is to all readers what
    it means: strings.

    Deltas of integers are smaller than a dictionary of them, and half the work.
    """
    return {
        "store_schema": False,
        "use_dictionary": [column for column in columns if column not in integers],
        "column_encoding": dict.fromkeys(integers, "DELTA_BINARY_PACKED"),
    }


def remove(name: str, paths: Sequence[str]) -> None:
    """Delete files that `put` wrote and no commit named."""
    with answering(name):
        fs, root = _filesystem(name)
        for path in paths:
            fs.rm_file(f"{root}/{path}")


def commit(
    delta: DeltaTable, parts: Sequence[Part], progress: Mapping[str, int], said: Mapping[str, str]
) -> None:
    """Make `parts` visible, with transaction ids at new values and `said` in the log, on exactly
    `delta`'s version.

    Raises CommitFailedError if another writer was faster; then nothing is visible.
    """
    properties = CommitProperties(
        custom_metadata=dict(said),
        app_transactions=[Transaction(name, value) for name, value in progress.items()],
        max_commit_retries=0,
    )
    with answering(delta.table_uri.rstrip("/").rsplit("/", 1)[1]):
        delta.create_write_transaction(
            [part.action() for part in parts],
            "append",
            delta.schema(),
            delta.metadata().partition_columns,
            commit_properties=properties,
        )


def said(name: str, version: int) -> dict[str, str]:
    """What the commit that made a version says of itself: its operation, and `said` of `commit`."""
    # deltalake's history() labels commits wrongly from an earlier version on, and reads every later
    # one.
    log = f"{uri(name)}/_delta_log/{version:020}.json"
    with answering(name):
        lines = pl.scan_lines(log, storage_options=options(log)).collect().to_series()
    return next(action["commitInfo"] for action in map(json.loads, lines) if "commitInfo" in action)


def at(name: str, version: int | None) -> DeltaTable:
    """A table at a version (newest: None). Raises LakeError if there is no such table or
    version."""
    delta = find(name)
    if delta is None:
        raise LakeError(
            f"There is no table {name} in {settings().lake} yet. Ingest raw files first."
        )
    if version is None:
        return delta
    try:
        delta.load_as_version(version)
    except DeltaError as error:
        raise LakeError(
            f"Table {name} has no version {version}; the newest is {delta.version()}."
        ) from error
    return delta


def files(delta: DeltaTable) -> pl.DataFrame:
    """The table's files: columns path, num_records, partition.*, min.* and max.*."""
    return pl.DataFrame(delta.get_add_actions(flatten=True))


def compact(name: str) -> int:
    """Merge small files of the same partition; the number of files that are now fewer. Rows and old
    versions stay."""
    written = WriterProperties(max_row_group_size=ROW_GROUP, compression="ZSTD")
    metrics = at(name, None).optimize.compact(max_concurrent_tasks=1, writer_properties=written)
    return metrics["numFilesRemoved"] - metrics["numFilesAdded"]


def vacuum(name: str, hours: int, keep_versions: Sequence[int]) -> int:
    """Delete files that neither the newest version nor one of `keep_versions` needs; how many it
    were.

    That is what compaction has replaced, and what killed loads have left, if it is older than
    `hours`.
    """
    found = at(name, None)
    kept = sorted({version for version in keep_versions if version <= found.version()})
    return len(
        found.vacuum(
            hours, dry_run=False, enforce_retention_duration=False, full=True, keep_versions=kept
        )
    )


def _filesystem(name: str) -> tuple[fsspec.AbstractFileSystem, str]:
    limits = {
        "config_kwargs": {
            "connect_timeout": 3,
            "read_timeout": 20,
            "retries": {"total_max_attempts": 2},
        }
    }
    return fsspec.core.url_to_fs(uri(name), **(limits if options(uri(name)) else {}))


def _plain(error: Exception) -> str:
    """Delta's coloured many-line message in one line."""
    return " ".join(re.sub(r"\x1b\[\d*m|↳", "", str(error)).split())
