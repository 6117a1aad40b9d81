"""The table `rejects`: bad lines, byte for byte, with source, line, reason code and broken rule.

A load's commit names the files that hold its rejects. `publish_rejects` makes them visible in this
table. So rejects are there if, and only if, the load is.
"""

import polars as pl
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError
from pydantic import TypeAdapter

from kreislauf.lake import delta, storage
from kreislauf.lake.data_files import DataFile
from kreislauf.lake.validate import REJECTED
from models.table import Table

REJECTS = "rejects"
"""Name of the table in the lake."""
REJECT = pl.Schema({"table": pl.String(), "sha256": pl.String(), **REJECTED})
"""Columns of the table."""
DATA_FILES = TypeAdapter(list[DataFile])
"""The files with a load's rejects, as its commit names them."""


def newest_id(table: Table) -> str:
    """Transaction id whose value is the version of the newest load of `table` with rejects."""
    return f"{table.name}/rejects"


def intent(
    stored: DeltaTable, table: Table, files: list[DataFile], replaces: str | None
) -> dict[str, str]:
    """Metadata of a load's commit about its rejects.

    These are their files, the load with rejects before it, and what they replace.
    """
    before = stored.transaction_version(newest_id(table)) or 0
    metadata = {"rejects": DATA_FILES.dump_json(files).decode(), "rejects_before": str(before)}
    if replaces:
        metadata["replaces"] = replaces
    return metadata


def predicate(table: Table, source: str, sha256: str | None, last: int) -> str:
    """SQL predicate of the rejects of one source up to line `last`.

    What a stream adds meanwhile has higher line numbers.
    """
    quoted = source.replace("'", "''")
    same_content = "sha256 IS NULL"
    if sha256:
        same_content = f"sha256 = '{sha256}'"
    return (
        f"\"table\" = '{table.name}' AND source = '{quoted}' AND {same_content} AND line <= {last}"
    )


def publish_rejects(table: Table) -> None:
    """Let the rejects of every load that is visible follow it into the table `rejects`.

    Raises LakeUnreachable, and LakeError if other writers are faster all the time.
    """
    with storage.answering(REJECTS):
        stored = delta.find(table.name)
        if stored is None:
            return
        newest = stored.transaction_version(newest_id(table))
        if newest is None:
            return
        races_lost = 0
        while races_lost < storage.ATTEMPTS:
            try:
                rejects = delta.find(REJECTS) or delta.create(REJECTS, REJECT, "table")
                published = rejects.transaction_version(table.name) or 0
                if published >= newest:
                    return
                version = newest
                metadata = delta.commits_metadata(table.name, [version])[0]
                while (before := int(metadata["rejects_before"])) > published:
                    version = before
                    metadata = delta.commits_metadata(table.name, [version])[0]
                files = DATA_FILES.validate_json(metadata["rejects"])
                if "replaces" in metadata:
                    _replace(rejects, table, version, files, metadata["replaces"])
                else:
                    delta.commit(rejects, files, {table.name: version}, {})
            except CommitFailedError:
                races_lost += 1
    raise storage.too_busy(REJECTS)


def _replace(
    rejects: DeltaTable, table: Table, version: int, files: list[DataFile], replaces: str
) -> None:
    """Put a replay's rejects in the place of those that it read.

    Raises CommitFailedError if another writer was faster.
    """
    folder = storage.uri(REJECTS)
    options = storage.options(folder)
    lines = REJECT.to_frame()
    if files:
        lines = pl.concat(
            pl.read_parquet(
                f"{folder}/{file.path}", storage_options=options, hive_partitioning=False
            )
            for file in files
        )
    properties = CommitProperties(
        app_transactions=[Transaction(table.name, version)], max_commit_retries=0
    )
    rows = lines.with_columns(pl.lit(table.name).alias("table")).select(REJECT.names())
    write_deltalake(
        rejects, rows, mode="overwrite", predicate=replaces, commit_properties=properties
    )


def rejects(table: Table) -> pl.DataFrame:
    """Quarantined lines of `table`: columns of REJECT, in the files' order."""
    return lines_of(table).collect().sort("source", "sha256", "line")


def sources(table: Table) -> pl.DataFrame:
    """What is quarantined: one row for each reason in each source.

    Columns are source, sha256, reason, lines.
    """
    groups = lines_of(table).group_by("source", "sha256", "reason").agg(pl.len().alias("lines"))
    return groups.collect().sort("source", "sha256", "reason")


def lines_of(table: Table) -> pl.LazyFrame:
    """The rejects of `table`, not read yet."""
    stored = delta.find(REJECTS)
    lines = REJECT.to_frame().lazy()
    if stored is not None:
        lines = pl.scan_delta(stored)
    return lines.filter(pl.col("table") == table.name).select(REJECT.names())
