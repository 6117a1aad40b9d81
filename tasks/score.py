"""Tasks of score: plan a batch, answer its shards, make the answers visible."""

from typing import Any

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from kreislauf import registry
from kreislauf.batch import answers, plan, shards
from kreislauf.batch.batch import Batch
from kreislauf.batch.report import BatchReport
from models.mapping import Mapping


@task(task_run_name="plan-{version.model}-{version.number}", cache_policy=NO_CACHE)
def plan_window(version: registry.Version, start: int, end: int) -> Batch:
    """The batch of a window (ms since 1970 UTC, the end exclusive), as `plan.of_window`."""
    return plan.of_window(version, start, end)


@task(task_run_name="plan-{version.model}-{version.number}", cache_policy=NO_CACHE)
def plan_file(version: registry.Version, requests: str, mapping: Mapping | None) -> Batch:
    """The batch of a file of requests, as `plan.of_file`."""
    return plan.of_file(version, requests, mapping)


def is_unreachable(_task: Any, _run: Any, state: Any) -> bool:
    """Whether a store did not answer, which may answer later."""
    return isinstance(state.data, ConnectionError)


@task(
    task_run_name="shard-{number}-of-{batch.shards}",
    cache_policy=NO_CACHE,
    retries=2,
    retry_delay_seconds=10,
    retry_condition_fn=is_unreachable,
)
def answer_shard(batch: Batch, number: int) -> int:
    """Answer one shard; the number of its requests."""
    return shards.write(batch, number)


@task(task_run_name="commit-{batch.name}", cache_policy=NO_CACHE)
def commit_answers(batch: Batch) -> None:
    """Make the answers of all shards visible at once, unless another run has done it meanwhile."""
    by_shard = shards.files(batch)
    lacking = sorted(set(range(batch.shards)) - set(by_shard))
    if answers.is_committed(batch):
        return
    if lacking:
        raise RuntimeError(
            f"The answers of {len(lacking)} of {batch.shards} shards are gone, that of shard "
            f"{lacking[0]} first: run score again, which answers them anew."
        )
    answers.commit(batch, [file for files in by_shard.values() for file in files])


@task(task_run_name="forget-{batch.name}", cache_policy=NO_CACHE)
def forget_shards(batch: Batch) -> None:
    """Remove what was noted of the shards of a batch whose answers are visible."""
    shards.forget(batch)


def show(report: BatchReport) -> None:
    """What was answered, as an artifact of the run."""
    create_markdown_artifact(
        key=f"batch-{report.batch.model.replace('_', '-')}",
        markdown=report.page(),
        description="What a batch has answered, and with which file",
    )
