"""Loads: raw lines into a table, exactly once, and the accounts of every load."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol, cast

import numpy as np
import polars as pl

from kreislauf.lake import clocks, decode, delta, mapped, quarantine, staging, storage, validate
from kreislauf.lake.accounts import Accounts
from kreislauf.lake.intake import Intake
from kreislauf.lake.landing import Landing, Origin, Overtaken, Progress, open_table
from kreislauf.lake.sessions import SessionStage
from kreislauf.lake.storage import LakeError
from models.mapping import Mapping
from models.records import RawPart
from models.table import RawLines, Table

REPLAY_LINES = 10_000
"""Rejected lines that are read together."""
MAX_COMMITS = 100
"""Most commits that are read to learn how many lines were rejected in a stretch of loads."""


class RawFile(Protocol):
    """What `load_file` needs of `sources.RawFile`."""

    path: str
    stamp: str

    @property
    def mapping(self) -> Mapping | None: ...
    @property
    def sha256(self) -> str: ...
    def chunks(self) -> Iterator[RawPart]: ...


def find_loaded(table: Table, stamps: Iterable[str]) -> dict[str, Accounts]:
    """Accounts of the raw files with these stamps that are in the table already, by stamp.

    They cost one read of the log, and none of a file. Raises LakeUnreachable.
    """
    quarantine.publish_rejects(table)
    stored = delta.find(table.name)
    if stored is None:
        return {}
    loads = {stamp: stored.transaction_version(_stamp_id(table, stamp)) for stamp in stamps}
    versions = {stamp: version for stamp, version in loads.items() if version is not None}
    if not versions:
        return {}
    commits = delta.commits_metadata(table.name, sorted(set(versions.values())))
    accounts = [_as_earlier(commit) for commit in commits]
    by_version = {load.version: load for load in accounts}
    return {stamp: by_version[version] for stamp, version in versions.items()}


def load_file(
    table: Table, file: RawFile, max_reject_share: float = 1.0, source_name: str | None = None
) -> Accounts:
    """Load a raw file, exactly once; it moves the clock of the source of this name.

    Neither the same path unchanged nor the same content is loaded again. Raises TooManyRejects,
    LakeUnreachable, and what reading the file raises; nothing of it is visible then.
    """
    stamp_id = _stamp_id(table, file.stamp)
    earlier = _accounts_of(table, stamp_id)
    if earlier:
        quarantine.publish_rejects(table)
        return earlier

    def content_id() -> str:
        if file.mapping is None:
            return f"{table.name}/{file.sha256}"
        return f"{table.name}/{file.sha256}/{file.mapping.digest}"

    def origin() -> Origin:
        progress: Progress = {content_id(): (None, None), stamp_id: (None, None)}
        return Origin(
            kind="file",
            source=file.path,
            progress=progress,
            sha256=file.sha256,
            mapping=file.mapping,
            source_name=source_name,
        )

    try:
        return load(table, file.chunks(), origin, max_reject_share, True, file.mapping)
    except Overtaken:
        earlier = _accounts_of(table, content_id())
        assert earlier is not None
        return earlier


def load(
    table: Table,
    raws: Iterable[RawPart],
    origin: Callable[[], Origin],
    max_reject_share: float = 1.0,
    whole: bool = False,
    mapping: Mapping | None = None,
) -> Accounts:
    """Load lines in bounded memory: one commit, or nothing.

    By default they are the table's own lines, or rows with its columns. They are all lines of a
    `whole` source, or a batch. `origin` is called when all lines have been read. Raises Overtaken
    if the table's progress is not the one that `origin` starts from. Raises TooManyRejects if more
    than `max_reject_share` of the lines are bad, and at least MIN_REJECTS or all of a whole source.
    Raises LakeUnreachable if the storage does not answer.
    """
    quarantine.publish_rejects(table)
    with staging.spool() as folder:
        intake = Intake(table, folder)
        for batch in staging.batches(raws):
            if mapping is not None or not isinstance(batch[0], RawLines):
                decoded = mapped.decode_rows(table, mapping, batch)
            else:
                lines = cast(list[RawLines], batch)
                decoded = decode.decode_lines(table, lines)
                decoded = mapped.with_single_rows(table, lines, decoded)
            intake.add(validate.apply_rules(table, batch, decoded))
            del decoded  # before the next batch needs as much memory
        intake.check(max_reject_share, whole)
        stage = intake.stage
        stage.deal_out()
        sessions = None
        if mapping is not None and (gap := mapping.gap_ms(table)):
            sessions = SessionStage(table, folder, stage, gap)
            sessions.deal_out()
        with storage.answering(table.name):
            landing = Landing(table, intake, origin(), clocks.hours(intake.stage, table))
            accounts = None
            for _ in range(storage.ATTEMPTS):
                stored = open_table(table)
                landing.check_progress(stored)
                landing.put_rejects()
                if sessions:
                    stage = sessions.stage_at(stored)
                landing.put_rows(stored, stage)
                accounts = landing.commit(stored)
                if accounts:
                    break
    if accounts is None:
        raise storage.too_busy(table.name)
    quarantine.publish_rejects(table)
    return accounts


def replay(
    table: Table, source: str, sha256: str | None, mapping: Mapping | None = None
) -> Accounts:
    """Validate the rejects of one source again, by today's rules.

    Lines that pass become rows, the others stay. `mapping` is the source's of today. `sha256` tells
    files of the same path apart; streams have none. Raises Overtaken if another replay was faster.
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
    before = progress(table, [counter])[counter]
    replaces = quarantine.predicate(table, source, sha256, last)
    origin = Origin("replay", source, {counter: (before, None)}, sha256, replaces, mapping)
    batches = lines.select("line", "raw").collect_batches(chunk_size=REPLAY_LINES)
    raws = (
        RawLines.of(source, batch["raw"].to_list(), batch["line"].to_numpy()) for batch in batches
    )
    return load(table, raws, lambda: origin, mapping=mapping)


def progress(table: Table, ids: Sequence[str]) -> dict[str, int | None]:
    """How far the sources with these transaction ids have been loaded; None: not at all."""
    stored = delta.find(table.name)
    if stored is None:
        return dict.fromkeys(ids)
    return {name: stored.transaction_version(name) for name in ids}


def rejected_shares(table: Table, version: int) -> pl.DataFrame:
    """The share of rejected lines of loads, oldest first: columns version (of the table, which the
    load made), share, lines.

    They are the loads up to `version`, and those since. Of more than `MAX_COMMITS` commits on
    either side, as many are read, evenly over them: a stream makes a thousand a day.
    """
    newest = delta.at(table.name, None).version()
    sides = [(1, version), (version + 1, newest)]
    versions = [int(v) for first, last in sides for v in _evenly(first, last)]
    rows = []
    if versions:
        commits = delta.commits_metadata(table.name, versions)
        loads = [Accounts.model_validate_json(c["accounts"]) for c in commits if "accounts" in c]
        counted = [load for load in loads if load.kind != "replay" and load.lines_in]
        rows = [
            (load.version, load.lines_rejected / load.lines_in, load.lines_in) for load in counted
        ]
    schema = {"version": pl.Int64, "share": pl.Float64, "lines": pl.Int64}
    return pl.DataFrame(rows, schema, orient="row")


def _evenly(first: int, last: int) -> np.ndarray:
    """At most `MAX_COMMITS` of the versions `first` to `last`, evenly over them, with both."""
    count = max(0, min(MAX_COMMITS, last - first + 1))
    return np.linspace(first, last, count).round().astype(int)


def history(table: Table) -> list[Accounts]:
    """Accounts of all loads of `table`, oldest first."""
    commits = delta.at(table.name, None).history()
    return [
        Accounts.model_validate_json(commit["accounts"])
        for commit in reversed(commits)
        if "accounts" in commit
    ]


def _accounts_of(table: Table, transaction_id: str) -> Accounts | None:
    """Accounts of the load that set a transaction id, if one has."""
    stored = delta.find(table.name)
    if stored is None:
        return None
    version = stored.transaction_version(transaction_id)
    if version is None:
        return None
    return _as_earlier(delta.commits_metadata(table.name, [version])[0])


def _stamp_id(table: Table, stamp: str) -> str:
    """Transaction id of the load of a raw file."""
    return f"{table.name}/seen/{stamp}"


def _as_earlier(commit: dict[str, str]) -> Accounts:
    """Accounts of a load that is not the present one, of its commit's metadata."""
    accounts = Accounts.model_validate_json(commit["accounts"])
    return accounts.model_copy(update={"already_loaded": True})
