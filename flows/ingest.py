"""Ingest: raw files in, validated rows out; what does not pass is quarantined with its reason."""

from collections.abc import Sequence

from prefect import flow
from prefect.artifacts import create_table_artifact

from kreislauf import events, exposures, lake
from kreislauf.sources import find
from models import spec
from tasks.lake import load_file


class IngestError(RuntimeError):
    """Some files could not be loaded; the message names each and why."""


class IngestReport(lake.Counts):
    """What an ingest did. The totals leave out files that had been loaded before."""

    table: str
    files: tuple[lake.Accounts, ...]
    files_loaded: int
    files_already_loaded: int


@flow
def ingest(
    source: str,
    model: str = "session_recommender",
    max_reject_share: float = 0.1,
    table: str | None = None,
) -> IngestReport:
    """Load raw files, or the segments of the gateway. Running it again is safe: each file is loaded
    once.

    Args: source: A `.jsonl`, `.jsonl.gz`, `.jsonl.zst` or `.parquet` file, a folder that is
        searched with all below it,
            or an `s3://` prefix.
        model: Model type, a folder in `models/`; it decides the table and what a valid line is.
        max_reject_share: A file of whose lines a larger share is bad is not loaded at all: its
            source is broken.
        table: `exposures` or `feedback`, for the gateway's segments; then the model does not
            matter.

    Returns: The accounts of every file, and their totals: lines in = loaded + rejected + blank,
        rows in = kept + rejected + duplicate. Rejected lines are in the table `rejects`, byte for
        byte.

    Raises:
        ValueError: No model type, or table, has this name.
        SourceError: There are no raw files in `source`, or it cannot be reached.
        IngestError: Files could not be loaded; all others are.
    """
    into = the_table(model, table)
    outcomes = {path: _outcome(path, into, max_reject_share) for path in find(source)}
    files = [outcome for outcome in outcomes.values() if isinstance(outcome, lake.Accounts)]
    failed = {path: outcome for path, outcome in outcomes.items() if isinstance(outcome, Exception)}
    _publish(into.name, files, failed)
    report = _report(into.name, files)
    stopped = [error.counts for error in failed.values() if isinstance(error, lake.TooManyRejects)]
    if report.lines_rejected or stopped:
        events.emit_rejected(into.name, lake.total([report, *stopped]), stopped=len(stopped))
    if failed:
        reasons = "\n".join(f"- {path}: {error}" for path, error in failed.items())
        raise IngestError(
            f"{len(failed)} of {len(outcomes)} files could not be loaded:\n{reasons}\n"
            f"The other {len(files)} are loaded. Mend these and run again: no file is loaded twice."
        )
    return report


def the_table(model: str, table: str | None) -> spec.Table:
    """Raises ValueError that lists the known ones."""
    if table is None:
        return spec.load(model).table
    if table not in exposures.TABLES:
        raise ValueError(
            f"No table of the gateway is called {table!r}. Known: {', '.join(exposures.TABLES)}."
        )
    return exposures.TABLES[table]


def _outcome(path: str, table: spec.Table, max_reject_share: float) -> lake.Accounts | Exception:
    """Accounts of a file or why there are none: a bad file must not stop the next."""
    return load_file(path, table, max_reject_share, return_state=True).result(
        raise_on_failure=False
    )


def _publish(table: str, files: Sequence[lake.Accounts], failed: dict[str, Exception]) -> None:
    """Show the accounts of each file in Prefect's UI."""
    rows = [
        {"file": f.source, "state": "loaded before" if f.already_loaded else "loaded"}
        | f.model_dump(exclude={"table", "source", "kind", "sha256", "already_loaded", "reasons"})
        for f in files
    ]
    rows += [{"file": path, "state": f"failed: {error}"} for path, error in failed.items()]
    create_table_artifact(
        table=rows, key=f"ingest-{table.replace('_', '-')}", description=f"Files into `{table}`"
    )


def _report(table: str, files: Sequence[lake.Accounts]) -> IngestReport:
    new = [f for f in files if not f.already_loaded]
    return IngestReport(
        table=table,
        files=tuple(files),
        files_loaded=len(new),
        files_already_loaded=len(files) - len(new),
        **lake.total(new).model_dump(),
    )
