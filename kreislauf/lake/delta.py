"""Delta Lake: commits become visible on exactly the version that was read, or not at all."""

import json
import time
from collections.abc import Iterable, Mapping, Sequence

import deltalake
import polars as pl
from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.exceptions import DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, RemoveAction

from kreislauf.lake import open_tables, storage
from kreislauf.lake.data_files import DataFile
from kreislauf.lake.storage import LakeError
from kreislauf.settings import settings

KEEP_HISTORY = {
    "delta.enableExpiredLogCleanup": "false",
    "delta.logRetentionDuration": "interval 36500 days",
}
"""Configuration of a table whose old versions stay readable as long as their files do.

`flows/tidy.py` decides about the files."""


def names() -> list[str]:
    """Names of the folders of the lake, which are its tables; none before the first load.
    Raises LakeUnreachable."""
    with storage.answering(""):
        fs, root = storage.filesystem("")
        try:
            places = fs.ls(root.rstrip("/"), detail=True, refresh=True)
        except FileNotFoundError:
            return []
    folders = [place["name"] for place in places if place["type"] == "directory"]
    return sorted(folder.rstrip("/").rsplit("/", 1)[1] for folder in folders)


def find(name: str) -> DeltaTable | None:
    """The newest version of a table, or None if there is none. Raises LakeUnreachable."""
    address = storage.uri(name)
    try:
        with storage.answering(name):
            return open_tables.newest(address)
    except TableNotFoundError:
        return None


def create(name: str, schema: pl.Schema, partition_by: str) -> DeltaTable:
    """The table, which is made if it is not there. Raises LakeUnreachable."""
    address = storage.uri(name)
    with storage.answering(name):
        return open_tables.Table.create(
            address,
            stored_schema(schema),
            mode="ignore",
            partition_by=[partition_by],
            configuration=KEEP_HISTORY,
            storage_options=storage.options(address),
            commit_properties=CommitProperties(max_commit_retries=0),
        )


def at(name: str, version: int | None) -> DeltaTable:
    """A table at a version (newest: None).

    Raises LakeError if there is no such table or version.
    """
    delta = find(name)
    if delta is None:
        raise LakeError(
            f"There is no table {name} in {settings().lake} yet. Ingest raw files first."
        )
    if version is None:
        return delta
    newest = delta.version()
    if open_tables.is_kept(delta):
        delta = open_tables.opened(storage.uri(name))
    try:
        delta.load_as_version(version)
    except DeltaError as error:
        raise LakeError(
            f"Table {name} has no version {version}; the newest is {newest}."
        ) from error
    return delta


def stored_schema(schema: pl.Schema) -> pl.Schema:
    """The schema as Delta keeps it: it knows no Enum."""
    stored = dict(schema)
    for name, dtype in schema.items():
        if isinstance(dtype, pl.Enum):
            stored[name] = pl.String()
    return pl.Schema(stored)


def widen(delta: DeltaTable, schema: pl.Schema) -> bool:
    """Add the columns of `schema` that a table lacks, and say if there were any.

    Older rows have null there. Raises LakeError if a column's type is another one,
    CommitFailedError if another writer was faster.
    """
    present = pl.Schema(delta.schema())
    wanted = stored_schema(schema)
    common = [column for column in wanted if column in present]
    differences = [
        f"{column} is {present[column]}, not {wanted[column]}"
        for column in common
        if present[column] != wanted[column]
    ]
    if differences:
        raise LakeError(
            f"Table {delta.table_uri} has other column types ({', '.join(differences)}). "
            "Types cannot be changed in place: "
            "give the model type's table a new name and ingest the raw files into it."
        )
    lacking = {column: dtype for column, dtype in wanted.items() if column not in present}
    if lacking:
        fields = deltalake.Schema.from_arrow(pl.Schema(lacking)).fields
        delta.alter.add_columns(fields, commit_properties=CommitProperties(max_commit_retries=0))
    return bool(lacking)


def commit(
    delta: DeltaTable,
    files: Sequence[DataFile],
    progress: Mapping[str, int],
    metadata: Mapping[str, str],
    replaced: Sequence[RemoveAction] = (),
    same_rows: bool = False,
) -> None:
    """Make `files` visible on exactly `delta`'s version, in the place of those that are `replaced`,
    which may have the `same_rows`.

    `progress` holds the new values of transaction ids; `metadata` is stored in the log. Raises
    CommitFailedError if another writer was faster; then nothing is visible.
    """
    properties = CommitProperties(
        custom_metadata=dict(metadata),
        app_transactions=[Transaction(name, value) for name, value in progress.items()],
        max_commit_retries=0,
    )
    now = int(time.time() * 1000)
    has_new_rows = not same_rows
    additions = [
        AddAction(file.path, file.size, file.partition, now, has_new_rows, file.statistics)
        for file in files
    ]
    with storage.answering(open_tables.name_of(delta)):
        delta.create_write_transaction(
            [*replaced, *additions],
            "append",
            delta.schema(),
            delta.metadata().partition_columns,
            commit_properties=properties,
        )


def commits_metadata(name: str, versions: Iterable[int]) -> list[dict[str, str]]:
    """Metadata of the commits that made some versions, one at least: the operation of each, and
    `metadata` of `commit`."""
    # deltalake's history() labels commits wrongly from an earlier version on, and reads every later
    # one.
    log = f"{storage.uri(name)}/_delta_log"
    paths = [f"{log}/{version:020}.json" for version in versions]
    with storage.answering(name):
        scanned = pl.scan_lines(paths, storage_options=storage.options(log))
        lines = scanned.filter(pl.col("line").str.contains("commitInfo", literal=True)).collect()
    actions = map(json.loads, lines.to_series())
    return [action["commitInfo"] for action in actions if "commitInfo" in action]


def files(delta: DeltaTable) -> pl.DataFrame:
    """The table's files: columns path, num_records, partition.*, min.* and max.*."""
    return pl.DataFrame(delta.get_add_actions(flatten=True))


def checkpoint(name: str) -> None:
    """Sum the log of a table up, so that readers need none of the commits before."""
    with storage.answering(name):
        at(name, None).create_checkpoint()


def vacuum(name: str, hours: int, keep_versions: Sequence[int]) -> int:
    """Delete files that neither the newest version nor one of `keep_versions` needs; their number.

    That is what compaction has replaced, and what killed loads have left, if it is older than
    `hours`.
    """
    delta = at(name, None)
    existing = sorted({version for version in keep_versions if version <= delta.version()})
    deleted = delta.vacuum(
        hours, dry_run=False, enforce_retention_duration=False, full=True, keep_versions=existing
    )
    return len(deleted)
