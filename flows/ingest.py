"""Ingest: raw files in, validated rows out; what does not pass is quarantined with its reason."""

from prefect import flow

from kreislauf import events, exposures, lake, sources
from kreislauf.lake import open_tables
from kreislauf.people import Share
from models import mapping as mappings
from models import spec
from models.loading import twin_for_text
from models.mapping import Mapping
from tasks import lake as lake_tasks

MERGE_LOADS = 50
"""Loads after which the small files that they left are merged."""


class IngestError(RuntimeError):
    """Some files could not be loaded; the message names each and why, and `failed` has their
    paths."""

    def __init__(self, message: str, failed: frozenset[str]):
        super().__init__(message)
        self.failed = failed


class IngestReport(lake.Counts):
    """What an ingest did. The totals leave out files that had been loaded before."""

    table: str
    files: tuple[lake.Accounts, ...]
    files_loaded: int
    files_already_loaded: int
    left_alone: tuple[str, ...] = ()
    """Files in the source whose endings are not those of raw files, and links to folders."""
    remarks: tuple[str, ...] = ()
    """What somebody should look at in the newest week of the table, each with its cure."""


@flow
def ingest(
    source: str,
    model: str | None = None,
    max_reject_share: Share = 0.1,
    table: str | None = None,
    mapping: str | None = None,
) -> IngestReport:
    """Load raw files, or the segments of the gateway.

    Running it again is safe: each file is loaded once.

    Args:
        source: A file of JSON lines, CSV or Parquet, a folder that is searched with all below it,
            or an `s3://` prefix.
        model: Model type, a folder in `models/`; by default the mapping's or `session_recommender`.
        max_reject_share: Maximum share of bad lines. A file with more is not loaded at all: its
            source is broken.
        table: `exposures` or `feedback`, for the gateway's segments; then the model does not
            matter.
        mapping: Path of a YAML file that says how the source's columns become the table's; by
            default they have its names. With a changed mapping, every file is a new one.

    Returns:
        The accounts of every file, and their totals, which balance. Rejected lines are in the
        table `rejects`, byte for byte.

    Raises:
        ValueError: No model type, or table, has this name; or the mapping does not fit.
        SourceError: There are no raw files in `source`, or it cannot be reached.
        IngestError: Files could not be loaded; all others are.
    """
    model_type, reading = mappings.find(mapping, model)
    target = find_table(model_type, table, reading)
    listing = sources.find(source, reading)
    given = (target, max_reject_share, reading, listing.name)
    failed: dict[str, Exception] = {}
    with open_tables.kept_open():
        loads = lake_tasks.find_loaded(listing.stamps, target)
        new = [path for path in listing.raw_files if path not in loads]
        for number, path in enumerate(new, 1):
            # A bad file must not stop the next.
            state = lake_tasks.load_file(path, *given, return_state=True)
            outcome = state.result(raise_on_failure=False)
            if isinstance(outcome, Exception):
                failed[path] = outcome
            else:
                loads[path] = outcome
            if number % MERGE_LOADS == 0 and loads:
                lake_tasks.merge_small_files(target.name)
    loaded = [loads[path] for path in listing.raw_files if path in loads]
    # A gateway is writing to what is left alone among its segments.
    left_alone = [] if target.name in exposures.TABLES else listing.left_alone
    lake_tasks.show_loads(target.name, loaded, failed, left_alone)
    report = summarize(target.name, loaded, left_alone)
    report_rejects(report, failed)
    is_looked_at = report.files_loaded and target.name not in exposures.TABLES
    remarks = lake_tasks.look_at_newest(model_type.name) if is_looked_at else []
    if failed:
        raise IngestError(describe_failures(model_type, loaded, failed), frozenset(failed))
    return report.model_copy(update={"remarks": tuple(remarks)})


def find_table(
    model_type: spec.ModelSpec, table: str | None, mapping: Mapping | None
) -> spec.Table:
    """The gateway's `table`, or else that of the model type.

    Raises ValueError, with the names that there are; and with a mapping for a table of the gateway,
    whose segments need none.
    """
    if table is None:
        return model_type.table
    if table not in exposures.TABLES:
        raise ValueError(
            f"No table of the gateway is called {table!r}. Known: {', '.join(exposures.TABLES)}."
        )
    if mapping is not None:
        raise ValueError(f"The gateway writes {table} as it is: leave `mapping` out.")
    return exposures.TABLES[table]


def report_rejects(report: IngestReport, failed: dict[str, Exception]) -> None:
    """Emit an event if lines were rejected, or if so many were that files were not loaded."""
    stopped = [error.counts for error in failed.values() if isinstance(error, lake.TooManyRejects)]
    if report.lines_rejected or stopped:
        events.emit_rejected(report.table, lake.total([report, *stopped]), stopped=len(stopped))


def summarize(table: str, loads: list[lake.Accounts], left_alone: list[str]) -> IngestReport:
    """The accounts of all files, and the totals of those that are new."""
    new = [load for load in loads if not load.already_loaded]
    return IngestReport(
        table=table,
        files=tuple(loads),
        files_loaded=len(new),
        files_already_loaded=len(loads) - len(new),
        left_alone=tuple(left_alone),
        **lake.total(new).model_dump(),
    )


def describe_failures(
    model_type: spec.ModelSpec, loaded: list[lake.Accounts], failed: dict[str, Exception]
) -> str:
    """The message of an IngestError."""
    reasons = "\n".join(f"- {path}: {error}" for path, error in failed.items())
    return (
        f"{len(failed)} of {len(loaded) + len(failed)} files could not be loaded:\n{reasons}\n"
        f"The other {len(loaded)} are loaded. "
        "Mend these and run again: no file is loaded twice."
        f"{model_type_for_text(model_type, failed)}"
    )


def model_type_for_text(model_type: spec.ModelSpec, failed: dict[str, Exception]) -> str:
    """A sentence on the model type that takes text where this one takes whole numbers, if that may
    be why files are refused; else empty."""
    stopped = [error.counts for error in failed.values() if isinstance(error, lake.TooManyRejects)]
    codes = {reason.reason for counts in stopped for reason in counts.reasons}
    twin = twin_for_text(model_type)
    if twin is None or not codes & {"wrong-type", "out-of-range"}:
        return ""
    return (
        f"\n{model_type.name} takes ids that are whole numbers from 0 to 2^63 - 1. If yours are "
        f"text, negative or larger, name the model type {twin.name}: docs/data.md says how."
    )
