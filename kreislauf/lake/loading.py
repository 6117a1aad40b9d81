"""Loads: raw lines into a table, exactly once, and the accounts of every load"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

import polars as pl

from kreislauf.lake import delta, quarantine, staging
from kreislauf.lake.accounts import Accounts
from kreislauf.lake.delta import LakeError
from kreislauf.lake.landing import Origin, Overtaken, Progress, land
from kreislauf.lake.staging import Intake
from models.table import RawLines, Table


class RawFile(Protocol):
    """What `load_file` needs of `source.RawFile`."""

    path: str
    stamp: str

    @property
    def sha256(self) -> str: ...
    def chunks(self) -> Iterator[RawLines]: ...


def load_file(table: Table, file: RawFile, max_reject_share: float = 1.0) -> Accounts:
    """Load a raw file, exactly once: neither the same path unchanged nor the same content is loaded
    again.

    Raises TooManyRejects, LakeUnreachable, and what reading the file raises; nothing of it is
    visible then.
    """
    seen = f"{table.name}/seen/{file.stamp}"
    if before := _loaded(table, seen):
        quarantine.publish_rejects(table)
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


def load(
    table: Table,
    raws: Iterable[RawLines],
    origin: Callable[[], Origin],
    max_reject_share: float = 1.0,
) -> Accounts:
    """Load lines in bounded memory: one commit, or nothing. `origin` is called when all have been
    read.

    Raises Overtaken if the table's progress is not the one that `origin` starts from,
    TooManyRejects if more than `max_reject_share` of the lines (and at least FEW) are bad,
    LakeUnreachable if the storage does not answer.
    """
    quarantine.publish_rejects(table)
    with staging.spool() as folder:
        intake = Intake(table, folder)
        for batch in staging.batches(raws):
            intake.add(batch)
        intake.check(max_reject_share)
        with delta.answering(table.name):
            accounts = land(table, intake, origin())
    quarantine.publish_rejects(table)
    return accounts


def replay(table: Table, source: str, sha256: str | None) -> Accounts:
    """Judge the rejects of one source again, by today's rules: lines that pass become rows, the
    others stay.

    `sha256` tells files of the same path apart; streams have none. Raises Overtaken if another
    replay was faster.
    """
    quarantine.publish_rejects(table)
    lines = quarantine.lines_of(table).filter(
        pl.col("source") == source, pl.col("sha256").eq_missing(pl.lit(sha256))
    )
    last = lines.select(pl.col("line").max()).collect().item()
    if last is None:
        raise LakeError(
            f"Nothing of {source} ({sha256}) is in the quarantine of table {table.name}."
        )
    counter = f"{table.name}/replays"
    # What a stream adds meanwhile has higher line numbers.
    quoted = source.replace("'", "''")
    which = f"sha256 = '{sha256}'" if sha256 else "sha256 IS NULL"
    replaces = f"\"table\" = '{table.name}' AND source = '{quoted}' AND {which} AND line <= {last}"
    origin = Origin(
        "replay", source, {counter: (progress(table, [counter])[counter], None)}, sha256, replaces
    )
    batches = lines.select("line", "raw").collect_batches(chunk_size=10_000)
    raws = (
        RawLines.of(source, batch["raw"].to_list(), batch["line"].to_numpy()) for batch in batches
    )
    return load(table, raws, lambda: origin)


def progress(table: Table, ids: Sequence[str]) -> dict[str, int | None]:
    """How far the sources with these transaction ids have been loaded; None: not at all."""
    found = delta.find(table.name)
    return {name: found.transaction_version(name) if found else None for name in ids}


def rejected_shares(table: Table) -> pl.DataFrame:
    """Of each load, oldest first, the table's version that it made and the share of its lines that
    were rejected: columns version, share, lines."""
    loads = [load for load in history(table) if load.kind != "replay" and load.lines_in]
    rows = [(load.version, load.lines_rejected / load.lines_in, load.lines_in) for load in loads]
    return pl.DataFrame(
        rows, {"version": pl.Int64, "share": pl.Float64, "lines": pl.Int64}, orient="row"
    )


def history(table: Table) -> list[Accounts]:
    """Accounts of all loads of `table`, oldest first."""
    commits = delta.at(table.name, None).history()
    return [
        Accounts.model_validate_json(c["accounts"]) for c in reversed(commits) if "accounts" in c
    ]


def _loaded(table: Table, name: str) -> Accounts | None:
    """Accounts of the load that set a transaction id, if one has."""
    found = delta.find(table.name)
    version = found.transaction_version(name) if found else None
    if version is None:
        return None
    accounts = Accounts.model_validate_json(delta.said(table.name, version)["accounts"])
    return accounts.model_copy(update={"already_loaded": True})
