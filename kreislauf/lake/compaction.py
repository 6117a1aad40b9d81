"""Compaction: small files of a table become larger ones, beside everybody who reads and writes.

deltalake's own compaction does not notice that another one has merged the same files, and then
every row is there twice (1.6.6). This one commits on exact versions, as loads do.
"""

import time

import polars as pl
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError
from deltalake.transaction import RemoveAction

from kreislauf.lake import data_files, delta, storage
from kreislauf.lake.data_files import DataFile

MAX_ROWS = 1_000_000
"""Rows of a merged file, about, which are in memory meanwhile."""
MAX_BYTES = 32 << 20
"""Bytes of a merged file, about."""
PARTITION = "partition."
"""How the columns of `delta.files` begin that hold a partition's values."""


def compact(name: str) -> int:
    """Merge files of the same partition that have less than half of `MAX_ROWS` and `MAX_BYTES`; the
    number of files that are now fewer.

    Rows and old versions stay. Raises LakeUnreachable, and LakeError if there is no such table or
    other writers are faster all the time.
    """
    stored = delta.at(name, None)
    fewer = 0
    for files in small_files(delta.files(stored)):
        merged = _merge(name, stored, files)
        if _put_in_place(name, files, merged):
            fewer += files.height - 1
    return fewer


def small_files(files: pl.DataFrame) -> list[pl.DataFrame]:
    """Which of a table's `files` to merge: each frame is of one partition, and of at least two."""
    if files.is_empty():
        return []
    small = files.filter(
        pl.col("num_records") < MAX_ROWS // 2, pl.col("size_bytes") < MAX_BYTES // 2
    ).sort("modification_time", "path")
    partition = [column for column in files.columns if column.startswith(PARTITION)]
    rows = pl.col("num_records").cum_sum() // MAX_ROWS
    size = pl.col("size_bytes").cum_sum() // MAX_BYTES
    numbered = small.with_columns(_share=(rows + size).over(partition or pl.lit(0)))
    shares = numbered.partition_by(*partition, "_share", maintain_order=True)
    return [share for share in shares if share.height > 1]


def _merge(name: str, stored: DeltaTable, files: pl.DataFrame) -> DataFile:
    """Write the rows of some files as one, which no commit has named yet."""
    folder = storage.uri(name)
    options = storage.options(folder)
    partition = {
        column.removeprefix(PARTITION): str(value)
        for column, value in files.row(0, named=True).items()
        if column.startswith(PARTITION)
    }
    schema = pl.Schema(stored.schema())
    columns = {column: dtype for column, dtype in schema.items() if column not in partition}
    with storage.answering(name):
        pieces = [
            pl.read_parquet(
                f"{folder}/{path}", storage_options=options, hive_partitioning=False, glob=False
            )
            for path in files["path"]
        ]
    rows = pl.concat([pl.DataFrame(schema=columns), *pieces], how="diagonal_relaxed")
    rows = rows.select(*columns).cast(columns)  # type: ignore[arg-type]
    return data_files.put(name, partition, rows)


def _put_in_place(name: str, files: pl.DataFrame, merged: DataFile) -> bool:
    """Commit that `merged` replaces `files`; False if another writer has replaced some of them."""
    for _ in range(storage.ATTEMPTS):
        stored = delta.at(name, None)
        present = set(delta.files(stored)["path"])
        if merged.path in present:  # A lost answer of the storage looks like a lost race.
            return True
        if not present.issuperset(files["path"]):
            data_files.remove(name, [merged])
            return False
        try:
            _commit(stored, files, merged)
        except CommitFailedError:
            continue
        return True
    raise storage.too_busy(name)


def _commit(stored: DeltaTable, files: pl.DataFrame, merged: DataFile) -> None:
    now = int(time.time() * 1000)
    removals = [
        RemoveAction(path, False, now, size, merged.partition)  # type: ignore[arg-type]
        for path, size in files.select("path", "size_bytes").iter_rows()
    ]
    delta.commit(stored, [merged], {}, {}, removals, same_rows=True)
