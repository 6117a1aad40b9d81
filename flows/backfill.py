"""Backfill: ingest, score or monitor past windows, in order or side by side, as one run."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple

from prefect import flow, get_run_logger
from prefect.artifacts import create_table_artifact
from pydantic import BaseModel, ConfigDict, PositiveInt

from flows.ingest import ingest
from flows.monitor import monitor
from flows.score import score
from kreislauf import clock, lake
from models import spec

Kind = Literal["ingest", "score", "monitor"]


class BackfillError(RuntimeError):
    """Some windows failed; the message names each and why. All others are done."""


class Window(NamedTuple):
    """A stretch of time, in UTC."""

    start: datetime
    end: datetime
    """Exclusive."""


class WindowReport(BaseModel):
    """What came of a window."""

    model_config = ConfigDict(frozen=True)

    start: datetime
    end: datetime
    outcome: str
    failed: bool = False


@flow
def backfill(
    work: Kind,
    start: datetime,
    end: datetime,
    model: str = "session_recommender",
    hours: float = 24.0,
    source: str | None = None,
    mapping: str | None = None,
    side_by_side: PositiveInt = 1,
) -> list[WindowReport]:
    """Do for each window of the past what ingest, score or monitor do for the newest data.

    It is safe to kill and to run again: files that are loaded, batches that are answered and
    windows that are noted are not done twice. A window that fails stops no other one.

    What `monitor` notes of a window is what the data say of the version that was live then; what is
    left out of them, and what people have clicked, is as it is known today. It raises no alarm,
    leaves no rows out and asks for no retraining: it is too late.

    Args:
        work: `ingest`, `score` or `monitor`.
        start: Beginning of the first window, UTC unless it says otherwise.
        end: End of the last window, exclusive; the last one is shorter if need be.
        model: Name of the model type.
        hours: Length of a window.
        source: For ingest, where a window's files are: a path or `s3://` prefix in which
            `{start:%Y-%m-%d}` or another format of Python's dates stands for the window's start.
        mapping: For ingest, path of the YAML file that says how the files are read.
        side_by_side: Windows at the same time; 1 does one after another, the oldest first.

    Returns:
        What came of each window, the oldest first.

    Raises:
        ValueError: the windows or the source make no sense.
        BackfillError: windows failed; all others are done.
    """
    windows = cut(start, end, timedelta(hours=hours))
    step = choose(work, model, source, mapping)
    get_run_logger().info(f"{work} of {len(windows)} windows of {hours:g} hours.")
    with ThreadPoolExecutor(side_by_side) as pool:
        # Each thread is part of this run, so that Prefect shows its runs below this one.
        futures = [pool.submit(copy_context().run, attempt, step, window) for window in windows]
        try:
            reports = [future.result() for future in futures]
        except BaseException:  # Who ends the run does not wait for windows that nobody has begun.
            pool.shutdown(cancel_futures=True)
            raise
    show(work, model, reports)
    failures = [report for report in reports if report.failed]
    if failures:
        lines = "\n".join(f"{report.start:%Y-%m-%d %H:%M}: {report.outcome}" for report in failures)
        raise BackfillError(
            f"{len(failures)} of {len(reports)} windows failed; run again to try them once more.\n"
            f"{lines}"
        )
    return reports


def cut(start: datetime, end: datetime, length: timedelta) -> list[Window]:
    """Windows from `start` to `end`, in UTC, the oldest first. Raises ValueError if there is
    none."""
    if length <= timedelta(0):
        raise ValueError(f"hours is {length.total_seconds() / 3600:g}: give more than 0.")
    start = clock.in_utc(start).astimezone(UTC)
    end = clock.in_utc(end).astimezone(UTC)
    if start >= end:
        raise ValueError(f"There is no time between start, {start}, and end, {end}.")
    windows = []
    while start < end:
        following = min(start + length, end)
        windows.append(Window(start, following))
        start = following
    return windows


def choose(
    work: Kind, model: str, source: str | None, mapping: str | None
) -> Callable[[Window], str]:
    """What is done for a window, and returns its outcome. Raises ValueError if it cannot be
    done."""
    spec.load(model)
    if work == "ingest":
        if source is None or "{start" not in source:
            raise ValueError(
                "To ingest windows, say where each one's files are, such as "
                "source=s3://shop/events/{start:%Y-%m-%d}/."
            )
        return lambda window: ingest_window(window, model, source, mapping)
    if work == "score":
        return lambda window: score(model, window.start, window.end).sentence()
    return lambda window: monitor_window(window, model)


def attempt(step: Callable[[Window], str], window: Window) -> WindowReport:
    """What came of a window; a failure is in the report and in the log."""
    times = {"start": window.start, "end": window.end}
    try:
        return WindowReport(outcome=step(window), **times)
    except Exception as error:  # Whatever a flow raises, the other windows are done.
        get_run_logger().error(f"The window from {window.start} failed: {error!r}")
        return WindowReport(outcome=f"{type(error).__name__}: {error}", failed=True, **times)


def ingest_window(window: Window, model: str, source: str, mapping: str | None) -> str:
    """Load a window's files."""
    report = ingest(source.format(start=window.start, end=window.end), model, mapping=mapping)
    return (
        f"{report.rows_kept} rows kept; {report.files_loaded} files loaded, "
        f"{report.files_already_loaded} were there."
    )


def monitor_window(window: Window, model: str) -> str:
    """Note what the monitor would have said at the window's end."""
    days = (window.end - window.start) / timedelta(days=1)
    newest = lake.watermark(spec.load(model).table)
    if newest is None or newest < clock.milliseconds(window.start):
        return "There are no rows yet."
    finding = monitor(model, days, until=window.end)
    if finding is None:
        return "Nothing was live."
    return f"Version {finding.version}: {finding.verdict}. {finding.reason}"


def show(work: Kind, model: str, reports: list[WindowReport]) -> None:
    """What came of all windows, as an artifact of the run."""
    rows = [
        {"start": f"{r.start:%Y-%m-%d %H:%M}", "end": f"{r.end:%Y-%m-%d %H:%M}", "what": r.outcome}
        for r in reports
    ]
    create_table_artifact(
        key=f"backfill-{work}-{model.replace('_', '-')}",
        table=rows,
        description="What came of each window, in UTC",
    )
