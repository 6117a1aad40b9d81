"""Tasks of ingest, replay and tidy"""

from prefect import task
from prefect.cache_policies import NO_CACHE
from pydantic import BaseModel, ConfigDict

from kreislauf import lake
from kreislauf.lake import delta
from kreislauf.sources import open_file
from models import spec


def _may_pass_later(_task: object, _run: object, state: object) -> bool:
    """Retry what the network or a disk did; a broken file stays broken."""
    return isinstance(state.result(raise_on_failure=False), OSError)  # type: ignore[attr-defined]


@task(
    task_run_name="load {path}",
    retries=2,
    retry_delay_seconds=2,
    retry_condition_fn=_may_pass_later,
    cache_policy=NO_CACHE,
)
def load_file(path: str, table: spec.Table, max_reject_share: float) -> lake.Accounts:
    """Validate one raw file and load it into the table, exactly once."""
    return lake.load_file(table, open_file(path, table.line), max_reject_share)


@task(task_run_name="replay {source}", cache_policy=NO_CACHE)
def replay_source(model: str, source: str, sha256: str | None) -> lake.Accounts:
    """Judge the rejects of one source again."""
    return lake.replay(spec.load(model).table, source, sha256)


class TidyReport(BaseModel):
    """What a tidying did to one table."""

    model_config = ConfigDict(frozen=True)

    table: str
    merged: int
    """Files fewer than before."""
    swept: int
    """Files deleted."""


@task(task_run_name="tidy {table}", cache_policy=NO_CACHE)
def tidy_table(table: str, retention_hours: int, needed: list[int]) -> TidyReport:
    """Compact and vacuum one table."""
    return TidyReport(
        table=table, merged=delta.compact(table), swept=delta.vacuum(table, retention_hours, needed)
    )
