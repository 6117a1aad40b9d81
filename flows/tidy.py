"""Tidy: merge the lake's small files, and sweep what nobody needs any more."""

from prefect import flow, get_run_logger

from kreislauf import exposures, registry
from kreislauf.batch.answers import ANSWERS
from kreislauf.evaluation.decision import DECISIONS
from kreislauf.lake import approvals, delta, exclusions, quarantine
from kreislauf.monitoring import tables
from models import loading, spec
from tasks.lake import TidyReport, tidy_journal, tidy_table
from tasks.monitor import forget_reports, forget_windows

JOURNALS = (
    tables.WINDOWS,
    tables.SLICES,
    tables.ALARMS,
    exclusions.DISTRUSTED,
    exclusions.VERDICTS,
    approvals.APPROVALS,
    DECISIONS,
)
"""Tables that are written a row at a time."""


@flow
def tidy(retention_hours: int = 168) -> list[TidyReport]:
    """Compact and vacuum the tables of all model types and of the gateway, the quarantine, the
    answers of batches, and what the monitor and the gate have noted.

    What the monitor says of windows older than `KREISLAUF_HISTORY_DAYS` is deleted, and so are
    Evidently's pages but the newest of each day, and of each alarm of it, of the last
    `KREISLAUF_REPORT_DAYS`. Calibration windows, decisions and what is distrusted stay.

    It is safe beside loads, streams and trainings. Every version that a registered model was
    trained from stays readable, and so do others that are younger than the retention. Files that
    killed loads have left are swept when they are older than that.

    Args:
        retention_hours: Hours, which must be longer than any load, training or query takes.

    Returns:
        What was done to each table that exists.

    Raises:
        registry.RegistryError: MLflow does not answer; then nothing is swept.
    """
    model_types, broken = loading.load_sound()
    for name, error in broken.items():
        get_run_logger().error(f"models/{name} cannot be loaded and is left as it is: {error!r}")
    loaded = [model_type.table for model_type in model_types]
    needed = find_needed_versions(loaded)
    for table in [*loaded, *exposures.TABLES.values()]:
        quarantine.publish_rejects(table)
    candidates = [*needed, *exposures.TABLES, quarantine.REJECTS, ANSWERS]
    names = [name for name in candidates if delta.find(name)]
    reports = [tidy_table(name, retention_hours, needed.get(name, [])) for name in names]
    rows = forget_windows()
    reports += [tidy_journal(name, retention_hours) for name in JOURNALS if delta.find(name)]
    pages = sum(forget_reports(model_type.name) for model_type in model_types)
    get_run_logger().info(f"{rows} rows of the monitor and {pages} of its pages are forgotten")
    for report in reports:
        get_run_logger().info(
            f"{report.table}: {report.merged} files fewer, {report.swept} files swept"
        )
    return reports


def find_needed_versions(tables: list[spec.Table]) -> dict[str, list[int]]:
    """Names of the tables, and the versions that registered models refer to."""
    needed: dict[str, list[int]] = {table.name: [] for table in tables}
    for lineage in registry.lineages():
        needed.setdefault(lineage.table, []).append(lineage.table_version)
    return needed
