"""Score: a version's answers to all requests of a window, or of a file, in shards side by side."""

from datetime import datetime
from typing import Any

from prefect import flow, get_run_logger
from prefect.futures import as_completed
from prefect.task_runners import ThreadPoolTaskRunner

from kreislauf import clock, registry
from kreislauf.batch import answers, plan, shards
from kreislauf.batch.batch import Batch
from kreislauf.batch.report import BatchReport
from kreislauf.progress import Progress
from kreislauf.release import releases
from models import spec
from tasks.page import draw_page
from tasks.score import answer_shard, commit_answers, forget_shards, plan_file, plan_window, show

WORKERS: Any = ThreadPoolTaskRunner(max_workers=plan.CORES)
"""Shards at the same time: one a core."""


@flow(task_runner=WORKERS)
def score(
    model: str = "session_recommender",
    start: datetime | None = None,
    end: datetime | None = None,
    requests: str | None = None,
    mapping: str | None = None,
    version: int | None = None,
) -> BatchReport:
    """Answer every request of a window of the model type's table, or of a file, into the table
    `answers`.

    The file that answers is the one that Triton would serve. Shards of a minute at most run side by
    side, one a core, or as another task runner has it: `score.with_options(task_runner=...)`. A run
    that was killed is continued by the next one with the same parameters: what was answered stays.
    The answers become visible together. A batch that is there already is not answered again, unless
    its window has got rows since: then the new answers take the place of the old ones.

    Args:
        model: Name of the model type.
        start: Beginning of the window, UTC unless it says otherwise; default: a day before `end`.
        end: End of the window, exclusive; default: that of the newest whole day of the data. Each
            group with a row in the window is a request; of lasting groups, each of their times.
        requests: A file of JSON lines on disk or S3, in place of a window: one request a line, as
            the gateway takes it, with an `id` of its own if it likes. The number of the line is the
            id of the others.
        mapping: Path of the YAML file by which the file of requests is read; by default that of the
            gateway, `KREISLAUF_MAPPING`, if it is for this model type.
        version: A registered version; default: the live one.

    Returns:
        The batch, whose name the column `batch` of its answers has, and what became of it.

    Raises:
        ValueError: unknown model type, an empty window, a window and a file, a mapping that does
            not fit, or nothing is live.
        sources.SourceError: the file of requests cannot be read.
        lake.LakeError, registry.RegistryError: a store is missing or does not answer.
    """
    model_type = spec.load(model)
    registered = registry.get(model, version or live_version(model))
    if mapping and requests is None:
        raise ValueError("`mapping` says how a file of requests is read: give `requests`, too.")
    if requests is not None:
        if start or end:
            raise ValueError("Give a window, or a file of requests; not both.")
        batch = plan_file(registered, requests, plan.mapping_of(model_type, mapping))
    else:
        batch = plan_window(registered, *window(model_type, start, end))
    answered = 0
    if not answers.is_committed(batch):
        answered = answer_all(batch)
        commit_answers(batch)
        draw_page(model)
    forget_shards(batch)
    report = summarise(batch, answered)
    show(report)
    get_run_logger().info(report.sentence())
    return report


def live_version(model: str) -> int:
    """The live version. Raises ValueError if there is none."""
    number = releases.champion(model)
    if number is None:
        raise ValueError(
            f"Nothing of {model} is live: run retrain first, or name the version that shall answer."
        )
    return number


def window(
    model_type: spec.ModelSpec, start: datetime | None, end: datetime | None
) -> tuple[int, int]:
    """Beginning and end of the window, ms since 1970 UTC, the end exclusive."""
    if end is None:
        first, last = plan.newest_day(model_type)
    else:
        last = clock.milliseconds(end)
        first = last - clock.DAY_MS
    if start is not None:
        first = clock.milliseconds(start)
    return first, last


def answer_all(batch: Batch) -> int:
    """Answer the shards that are not answered yet; their number. If some fail, the others are
    answered before the first failure is raised."""
    answered = shards.files(batch)
    waiting = [number for number in range(batch.shards) if number not in answered]
    if answered:
        get_run_logger().info(f"{len(answered)} of {batch.shards} shards are answered already.")
    show_progress = Progress.of(f"Batch {batch.name}")
    futures = [answer_shard.submit(batch, number) for number in waiting]
    done = batch.shards - len(waiting)
    for _ in as_completed(futures):
        done += 1
        show_progress(done / batch.shards, {})
    for future in futures:
        future.result()
    return len(waiting)


def summarise(batch: Batch, shards_answered: int) -> BatchReport:
    """What became of the batch's requests."""
    return BatchReport(batch=batch, shards_answered=shards_answered, **answers.counts(batch))
