"""Delta tables that are opened once, after which only their newer commits are read."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from urllib.parse import unquote

import polars as pl
from deltalake import DeltaTable

from kreislauf.lake import storage


class Table(DeltaTable):
    """A table whose files Polars finds on disk, too, if a folder has an odd name, and that reads
    each commit once for its transaction ids."""

    _transactions: dict[str, int]
    _transactions_version: int | None = None
    """Version of the table up to which `_transactions` are read."""

    def file_uris(self, *arguments: Any, **options: Any) -> list[str]:
        """Addresses of the files. Those on disk are paths; deltalake has them percent-encoded, and
        Polars takes them as they are."""
        uris = super().file_uris(*arguments, **options)
        if storage.options(self.table_uri):
            return uris
        return [unquote(address) for address in uris]

    def transaction_version(self, app_id: str) -> int | None:
        """Newest value of a transaction id, or None. deltalake reads up to a hundred commits for
        each question."""
        if not self._read_transactions():
            return super().transaction_version(app_id)
        return self._transactions.get(app_id)

    def transactions(self) -> dict[str, int]:
        """Newest value of each transaction id, of a version that no checkpoint has overtaken."""
        assert self._read_transactions()
        return self._transactions

    def _read_transactions(self) -> bool:
        """Read what `_transactions` lack; False for a version older than the last checkpoint."""
        version = self.version()
        start = self._transactions_version
        if start is None:
            start = self._read_checkpoint()
        if start > version:
            return False
        if start < version:
            self._read_commits(start + 1, version)
        self._transactions_version = version
        return True

    def _read_checkpoint(self) -> int:
        """Take the transaction ids of the last checkpoint, and return its version; -1 without
        one."""
        self._transactions = {}
        name = name_of(self)
        fs, root = storage.filesystem(name)
        with storage.answering(name):
            try:
                last = json.loads(fs.cat_file(f"{root}/_delta_log/_last_checkpoint"))
            except FileNotFoundError:
                return -1
            log = f"{storage.uri(name)}/_delta_log"
            path = f"{log}/{last['version']:020}.checkpoint.parquet"
            scanned = pl.scan_parquet(path, storage_options=storage.options(log), glob=False)
            transactions = scanned.select("txn").drop_nulls().unnest("txn").collect()
        self._transactions = dict(transactions.select("appId", "version").iter_rows())
        return last["version"]

    def _read_commits(self, first: int, last: int) -> None:
        """Take the transaction ids of the commits that made the versions from `first` to `last`."""
        name = name_of(self)
        log = f"{storage.uri(name)}/_delta_log"
        paths = [f"{log}/{version:020}.json" for version in range(first, last + 1)]
        with storage.answering(name):
            scanned = pl.scan_lines(paths, storage_options=storage.options(log))
            lines = scanned.filter(pl.col("line").str.contains('"txn"', literal=True)).collect()
        for action in map(json.loads, lines.to_series()):
            if "txn" in action:
                self._transactions[action["txn"]["appId"]] = action["txn"]["version"]


def transactions(table: DeltaTable) -> dict[str, int]:
    """Newest value of each transaction id of a table of this module, at its newest version."""
    assert isinstance(table, Table)
    return table.transactions()


def name_of(table: DeltaTable) -> str:
    """Name of a table in the lake."""
    return table.table_uri.rstrip("/").rsplit("/", 1)[1]


_kept: ContextVar[dict[str, Table] | None] = ContextVar("_kept", default=None)


@contextmanager
def kept_open() -> Iterator[None]:
    """What is opened within is kept open: the next `newest` of a table reads its newer commits
    only."""
    token = _kept.set({})
    try:
        yield
    finally:
        _kept.reset(token)


def newest(address: str) -> Table:
    """The newest version of the table at an address. Raises TableNotFoundError."""
    kept = _kept.get()
    if kept is None:
        return opened(address)
    if address in kept:
        kept[address].update_incremental()
    else:
        kept[address] = opened(address)
    return kept[address]


def is_kept(table: DeltaTable) -> bool:
    """Whether others get the same table, so that it has to stay at its newest version."""
    return any(table is kept for kept in (_kept.get() or {}).values())


def opened(address: str) -> Table:
    """The newest version of the table, of the caller's own. Raises TableNotFoundError."""
    return Table(address, storage_options=storage.options(address))
