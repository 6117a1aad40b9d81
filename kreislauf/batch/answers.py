"""The table `answers`: what versions have answered in batches."""

import hashlib
import itertools
import time
from collections.abc import Sequence

import polars as pl
from deltalake.exceptions import CommitFailedError
from deltalake.transaction import RemoveAction

from kreislauf.batch.batch import Batch
from kreislauf.batch.questions import Questions
from kreislauf.lake import delta, storage
from kreislauf.lake.data_files import DataFile
from kreislauf.lake.storage import LakeError

ANSWERS = "answers"
BATCH = "batch"
"""Column by which the table is partitioned."""
SCHEMA = pl.Schema(
    {
        BATCH: pl.String(),
        "request_id": pl.String(),
        "id": pl.String(),
        "ts": pl.Int64(),
        "model": pl.String(),
        "version": pl.Int64(),
        "onnx": pl.String(),
        "answer": pl.String(),
        "refusal": pl.String(),
    }
)
"""Columns of a row, which is the answer to one request.

`request_id` is a digest of the batch and the name of the request in it: feedback names it. `id` is
the group, or what the line calls itself. `ts` is ms since
1970 UTC, in the data's time, and `onnx` the SHA-256 of the file that answered. `answer` is JSON, as
the gateway writes it, or null where `refusal` says why the request cannot be asked."""


def no_rows() -> pl.DataFrame:
    """A frame of the columns of a file."""
    return pl.DataFrame(schema=SCHEMA).drop(BATCH)


def rows(batch: Batch, asked: Questions, answers: Sequence[str]) -> pl.DataFrame:
    """Rows of the table for requests, with the answer of each, and for those that cannot be
    asked."""
    answered = zip(asked.names, asked.ids, answers, itertools.repeat(None), strict=False)
    refused = ((name, own_id, None, reason) for name, own_id, reason in asked.refusals)
    text = ("name", "id", "answer", "refusal")
    frame = pl.DataFrame([*answered, *refused], dict.fromkeys(text, pl.String), orient="row")
    digest = hashlib.sha256(batch.name.encode()).hexdigest()[:16]
    frame = frame.with_columns(
        pl.concat_str(pl.lit(f"{digest}-"), pl.col("name")).alias("request_id"),
        pl.lit(batch.ts, pl.Int64).alias("ts"),
        pl.lit(batch.model).alias("model"),
        pl.lit(batch.version, pl.Int64).alias("version"),
        pl.lit(batch.onnx).alias("onnx"),
    )
    return frame.select(no_rows().columns)


def is_committed(batch: Batch) -> bool:
    """Whether the table has the answers of the batch."""
    stored = delta.find(ANSWERS)
    return stored is not None and bool(_files(delta.files(stored), batch.name).height)


def commit(batch: Batch, files: Sequence[DataFile]) -> None:
    """Make the answers of a whole batch visible, in the place of those of an earlier batch of the
    same place; nothing happens if they are visible already, or if there are none.

    Raises LakeError if a newer batch of that place is there.
    """
    if not files:
        return
    for _ in range(storage.ATTEMPTS):
        try:
            stored = delta.find(ANSWERS) or delta.create(ANSWERS, SCHEMA, BATCH)
            present = delta.files(stored)
            if _files(present, batch.name).height:
                return
            former = _former(present, batch)
            newest = stored.transaction_version(batch.place)
            table_version = batch.table_version or 0
            if former.height and newest is not None and newest > table_version:
                raise LakeError(
                    f"Newer rows of the window of {batch.name} were answered meanwhile, and stay. "
                    "Run score again to see them."
                )
            replaced = [_removal(file) for file in former.iter_rows(named=True)]
            progress = {batch.place: table_version}
            delta.commit(stored, files, progress, {"batch": batch.model_dump_json()}, replaced)
            return
        except CommitFailedError:
            continue  # Another writer was faster; what it wrote may be this.
    raise storage.too_busy(ANSWERS)


def scan(*predicates: pl.Expr) -> pl.LazyFrame | None:
    """Rows for which the predicates hold; None if nothing was ever answered. Collect it under
    `storage.answering`."""
    stored = delta.find(ANSWERS)
    if stored is None:
        return None
    return pl.scan_delta(stored).filter(*predicates)


def read(batch: str) -> pl.DataFrame:
    """The rows of a batch, by its name, sorted by `id`."""
    lazy = scan(pl.col(BATCH) == batch)
    if lazy is None:
        return pl.DataFrame(schema=SCHEMA)
    with storage.answering(ANSWERS):
        return lazy.collect().sort("id")


def counts(batch: Batch) -> dict[str, int]:
    """Number of the batch's requests that are `answered`, and of those `refused`. The answers
    themselves, which may be long, are not read: each row has either an answer or a refusal."""
    lazy = scan(pl.col(BATCH) == batch.name)
    if lazy is None:
        return {"answered": 0, "refused": 0}
    with storage.answering(ANSWERS):
        asked, refused = lazy.select(pl.len(), refused=pl.col("refusal").count()).collect().row(0)
    return {"answered": asked - refused, "refused": refused}


def _files(present: pl.DataFrame, name: str) -> pl.DataFrame:
    """Those of a table's files that a batch has."""
    if present.is_empty():
        return present
    return present.filter(pl.col(f"partition.{BATCH}") == name)


def _former(present: pl.DataFrame, batch: Batch) -> pl.DataFrame:
    """Those of a table's files that earlier batches of the same place have."""
    if present.is_empty():
        return present
    return present.filter(pl.col(f"partition.{BATCH}").str.starts_with(f"{batch.place}-"))


def _removal(file: dict) -> RemoveAction:
    now = int(time.time() * 1000)
    partition: dict = {BATCH: file[f"partition.{BATCH}"]}
    return RemoveAction(file["path"], True, now, file["size_bytes"], partition)
