"""Rows of a training as an Arrow file: written by the step that reads them first, mapped by the
later ones.

A file is named after what was asked for and after the SHA-256 of its own bytes. Its writer has
taken the digest of the rows. A process that has not written a file checks its bytes once, before it
maps them: Arrow does not look whether mapped bytes make sense. Files appear whole and are never
written again, so bytes that were right stay right as long as the file is the same.
"""

import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pyarrow
import pyarrow.ipc

from kreislauf.settings import settings
from models.table import Table

log = logging.getLogger(__name__)

KEPT = 3
"""Number of files that stay when a new one is written; the oldest are deleted."""
DRAFT_SECONDS = 86_400
"""Age from which a draft is taken for one that a killed process has left."""

_checked: set[tuple[int, ...]] = set()
"""Files whose bytes this process has written or checked, as `_identity` tells them apart."""


@dataclass(frozen=True)
class Snapshot:
    """Rows of a table at one moment, as a training has learnt from them."""

    table: Table
    version: int
    """Delta version."""
    watermark: int
    """Newest event, ms since 1970 UTC."""
    digest: str
    """SHA-256 of the rows, hexadecimal."""
    without: Sequence[tuple[int, int]] = ()
    """Stretches of time that are left out, ms since 1970 UTC, inclusive."""

    @property
    def key(self) -> str:
        """Hex SHA-256 of all of it: a question that differs in anything is another one."""
        question = [self.table.name, self.version, self.watermark, self.digest, [*self.without]]
        return hashlib.sha256(json.dumps(question).encode()).hexdigest()


def find(snapshot: Snapshot) -> pl.DataFrame | None:
    """The rows, mapped from disk; None if they are not there, damaged, or of other columns than
    the table has today."""
    for path in _folder().glob(f"{snapshot.key}.*.arrow"):
        try:
            if not _is_whole(path):
                path.unlink()
                continue
            rows = _mapped(path, snapshot.table)
        except FileNotFoundError:  # Another process has swept it meanwhile.
            continue
        if rows.schema == snapshot.table.dtypes:
            return rows
    return None


def store(snapshot: Snapshot, rows: pl.DataFrame) -> pl.DataFrame:
    """Keep `rows`, whose digest is the snapshot's, and return them mapped from disk.

    A file takes as much room as the rows in memory; all but the newest `KEPT` are deleted. A writer
    that is killed leaves a draft, which a later writer deletes. Where the file cannot be written,
    the rows are returned as they are: later steps read the lake.
    """
    try:
        return _write(snapshot, rows)
    except OSError as error:
        log.warning("The rows of a training are not cached, so they are read again: %s", error)
        return rows


def _write(snapshot: Snapshot, rows: pl.DataFrame) -> pl.DataFrame:
    folder = _folder()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, suffix=".tmp") as drafts:
        draft = Path(drafts) / "rows.arrow"
        # One batch, so that a column is one array.
        rows.write_ipc(draft, record_batch_size=max(1, rows.height))
        # Mapped before it has its name: from then on another process may sweep it.
        mapped = _mapped(draft, snapshot.table)
        _checked.add(_identity(draft))
        os.replace(draft, folder / f"{snapshot.key}.{_sha256(draft)}.arrow")
    _sweep(folder)
    return mapped


def _folder() -> Path:
    """Beside the cached files of versions."""
    return settings().home / "cache" / "rows"


def _mapped(path: Path, table: Table) -> pl.DataFrame:
    with pyarrow.memory_map(str(path)) as source:
        stored = pyarrow.ipc.open_file(source).read_all()
    rows = pl.DataFrame(stored)
    # Arrow does not keep that the rows are sorted, which Polars makes use of.
    return rows.with_columns(rows[table.order[0]].set_sorted())


def _is_whole(path: Path) -> bool:
    """Whether the file has the bytes that its name says; looked at once in a process."""
    identity = _identity(path)
    if identity not in _checked:
        if _sha256(path) != path.name.split(".")[1]:
            return False
        _checked.add(identity)
    return True


def _identity(path: Path) -> tuple[int, ...]:
    """What changes when a file is replaced or written."""
    stat = path.stat()
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sweep(folder: Path) -> None:
    """Delete all but the newest files, and drafts that nobody writes any more."""
    newest_first = sorted(folder.glob("*.arrow"), key=_modified, reverse=True)
    for path in newest_first[KEPT:]:
        path.unlink(missing_ok=True)
    for draft in folder.glob("*.tmp"):
        if time.time() - _modified(draft) > DRAFT_SECONDS:
            shutil.rmtree(draft, ignore_errors=True)


def _modified(path: Path) -> float:
    """When the file was written, in seconds since 1970; 0 if another process has swept it."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
