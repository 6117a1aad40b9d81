"""The table `rejects`: bad lines, byte for byte, with source, line, reason code and the rule that
they broke.

A load's commit names the files that hold its rejects; `publish_rejects` makes them part of this table. So
rejects are there if, and only if, the load is.
"""

import polars as pl
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError
from pydantic import TypeAdapter

from kreislauf.lake import delta
from kreislauf.lake.delta import Part
from kreislauf.lake.validate import REJECTED
from models.table import Table

REJECTS = "rejects"
REJECT = pl.Schema({"table": pl.String(), "sha256": pl.String(), **REJECTED})
PARTS = TypeAdapter(list[Part])


def newest(table: Table) -> str:
    """Transaction id whose value is the version of the newest load of `table` that has rejects."""
    return f"{table.name}/rejects"


def intent(
    found: DeltaTable, table: Table, parts: list[Part], replaces: str | None
) -> dict[str, str]:
    """What a load's commit says of its rejects: their files, the load with rejects before it, what
    they replace."""
    before = found.transaction_version(newest(table)) or 0
    said = {"rejects": PARTS.dump_json(parts).decode(), "rejects_before": str(before)}
    return said | ({"replaces": replaces} if replaces else {})


def publish_rejects(table: Table) -> None:
    """Let the rejects of every load that is visible follow it into the table `rejects`.

    Raises LakeUnreachable, and LakeError if other writers are faster all the time.
    """
    with delta.answering(REJECTS):
        found = delta.find(table.name)
        last = found.transaction_version(newest(table)) if found else None
        if last is not None:
            _publish_rejects(table, last)


def _publish_rejects(table: Table, last: int) -> None:
    lost = 0
    while lost < delta.ATTEMPTS:
        try:
            quarantine = delta.find(REJECTS) or delta.create(REJECTS, REJECT, "table")
            landed = quarantine.transaction_version(table.name)
            if landed is not None and landed >= last:
                return
            _follow(table, quarantine, _first_after(table, landed, last))
        except CommitFailedError:
            lost += 1
    raise delta.too_busy(REJECTS)


def rejects(table: Table) -> pl.DataFrame:
    """Quarantined lines of `table`: columns of REJECT, in the files' order."""
    return lines_of(table).collect().sort("source", "sha256", "line")


def sources(table: Table) -> pl.DataFrame:
    """What is quarantined: columns source, sha256, reason, lines; one row for each reason in each
    source."""
    groups = lines_of(table).group_by("source", "sha256", "reason").agg(pl.len().alias("lines"))
    return groups.collect().sort("source", "sha256", "reason")


def lines_of(table: Table) -> pl.LazyFrame:
    """The rejects of `table`, not read yet."""
    found = delta.find(REJECTS)
    lines = REJECT.to_frame().lazy() if found is None else pl.scan_delta(found)
    return lines.filter(pl.col("table") == table.name).select(REJECT.names())


def _first_after(table: Table, landed: int | None, newest: int) -> int:
    """The oldest version of a load with rejects that have not followed yet."""
    at = newest
    while (before := int(delta.said(table.name, at)["rejects_before"])) > (landed or 0):
        at = before
    return at


def _follow(table: Table, quarantine: DeltaTable, version: int) -> None:
    """Make the rejects of one load visible. Raises CommitFailedError if another writer was
    faster."""
    said = delta.said(table.name, version)
    parts = PARTS.validate_json(said["rejects"])
    if "replaces" not in said:
        delta.commit(quarantine, parts, {table.name: version}, {})
        return
    files = [f"{delta.uri(REJECTS)}/{part.path}" for part in parts]
    options = delta.options(delta.uri(REJECTS))
    lines = (
        pl.concat(
            [pl.read_parquet(f, storage_options=options, hive_partitioning=False) for f in files]
        )
        if files
        else REJECT.to_frame()
    )
    properties = CommitProperties(
        app_transactions=[Transaction(table.name, version)], max_commit_retries=0
    )
    rows = lines.with_columns(pl.lit(table.name).alias("table")).select(REJECT.names())
    write_deltalake(
        quarantine, rows, mode="overwrite", predicate=said["replaces"], commit_properties=properties
    )
