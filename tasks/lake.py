"""Tasks of the flows ingest, replay and tidy, and the tables that they show in Prefect's UI."""

from collections.abc import Sequence

from prefect import get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from pydantic import BaseModel, ConfigDict

from kreislauf import exposures, lake, sources
from kreislauf.lake import clocks, compaction, delta, journal, loading
from kreislauf.monitoring import remarks, stops
from models import spec
from models.mapping import Mapping

REMARK_DAYS = 7.0
"""Newest days in which is looked for what somebody should know."""
MAX_NAMES = 50
"""Most names of files that are left alone in a message or table."""


def may_pass_later(_task: object, _run: object, state: object) -> bool:
    """Retry what the network or a disk did; a broken file stays broken."""
    return isinstance(state.result(raise_on_failure=False), OSError)  # type: ignore[attr-defined]


@task(
    task_run_name="find what is loaded",
    retries=2,
    retry_delay_seconds=2,
    retry_condition_fn=may_pass_later,
    cache_policy=NO_CACHE,
)
def find_loaded(stamps: dict[str, str], table: spec.Table) -> dict[str, lake.Accounts]:
    """Accounts of the files that are in the table already, by path; `stamps` are those of all
    files, by path."""
    loads = loading.find_loaded(table, stamps.values())
    return {path: loads[stamp] for path, stamp in stamps.items() if stamp in loads}


@task(
    task_run_name="load {path}",
    retries=2,
    retry_delay_seconds=2,
    retry_condition_fn=may_pass_later,
    cache_policy=NO_CACHE,
)
def load_file(
    path: str,
    table: spec.Table,
    max_reject_share: float,
    mapping: Mapping | None = None,
    source_name: str | None = None,
) -> lake.Accounts:
    """Validate one raw file and load it into the table, exactly once."""
    file = sources.open_file(path, table, mapping)
    if table.name in exposures.TABLES:
        source_name = None  # A gateway that stops must not hide what others have shown.
    return lake.load_file(table, file, max_reject_share, source_name)


def show_loads(
    table: str,
    loaded: Sequence[lake.Accounts],
    failed: dict[str, Exception],
    left_alone: Sequence[str],
) -> None:
    """Show the accounts of each file in Prefect's UI, and name those that nobody has read."""
    hidden = {"table", "source", "kind", "sha256", "mapping", "already_loaded", "reasons"}
    hidden |= {"source_name", "newest"}
    rows: list[dict] = []
    for load in loaded:
        state = "loaded before" if load.already_loaded else "loaded"
        rows.append({"file": load.source, "state": state} | load.model_dump(exclude=hidden))
    rows += [{"file": path, "state": f"failed: {error}"} for path, error in failed.items()]
    if left_alone:
        get_run_logger().warning(
            f"{len(left_alone)} files are left alone, because they do not end in "
            f"{sources.ANY_ENDING}: {', '.join(left_alone[:MAX_NAMES])}"
        )
        rows += [{"file": path, "state": "left alone"} for path in left_alone[:MAX_NAMES]]
    create_table_artifact(
        table=rows, key=f"ingest-{table.replace('_', '-')}", description=f"Files into `{table}`"
    )


@task(task_run_name="look at the newest rows for {model}")
def look_at_newest(model: str) -> list[str]:
    """What somebody should look at in the newest week of a model type's table, and in its
    sources."""
    model_type = spec.load(model)
    sentences = stops.sentences(clocks.sources(model_type.table.name))
    sentences += remarks.of_newest(model_type, REMARK_DAYS, lake.watermark(model_type.table))
    for sentence in sentences:
        get_run_logger().warning(sentence)
    return sentences


@task(task_run_name="merge small files of {table}", cache_policy=NO_CACHE)
def merge_small_files(table: str) -> None:
    """Let the next loads read few files when they look for duplicates."""
    compaction.compact(table)


@task(task_run_name="replay {source}", cache_policy=NO_CACHE)
def replay_source(
    model: str, source: str, sha256: str | None, mapping: Mapping | None = None
) -> lake.Accounts:
    """Validate the rejects of one source again."""
    return lake.replay(spec.load(model).table, source, sha256, mapping)


def show_replays(table: str, replays: Sequence[lake.Accounts]) -> None:
    """Show the accounts of each replayed source in Prefect's UI."""
    shown = set(lake.Counts.model_fields) - {"reasons"} | {"source"}
    rows = [accounts.model_dump(include=shown) for accounts in replays]
    create_table_artifact(
        table=rows, key=f"replay-{table.replace('_', '-')}", description="Quarantine, replayed"
    )


class TidyReport(BaseModel):
    """What a tidying did to one table."""

    model_config = ConfigDict(frozen=True)

    table: str
    merged: int
    """Number of files fewer than before."""
    swept: int
    """Number of files deleted."""


@task(task_run_name="tidy {table}", cache_policy=NO_CACHE)
def tidy_table(table: str, retention_hours: int, keep_versions: list[int]) -> TidyReport:
    """Compact and vacuum one table; `keep_versions` stay readable."""
    merged = compaction.compact(table)
    swept = delta.vacuum(table, retention_hours, keep_versions)
    delta.checkpoint(table)
    return TidyReport(table=table, merged=merged, swept=swept)


@task(task_run_name="tidy {table}", cache_policy=NO_CACHE)
def tidy_journal(table: str, retention_hours: int) -> TidyReport:
    """Compact and vacuum a table of which only the newest version is read, and let its log be
    cut."""
    journal.cut_log(table)
    merged = compaction.compact(table)
    swept = delta.vacuum(table, retention_hours, [])
    delta.checkpoint(table)
    return TidyReport(table=table, merged=merged, swept=swept)
