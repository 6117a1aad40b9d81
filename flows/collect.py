"""Collect: what the gateway saw into the lake, and off its disk."""

import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from prefect import flow, get_run_logger

from flows.ingest import IngestError, IngestReport, ingest
from flows.publish import publish
from kreislauf import exposures, registry, sources
from kreislauf.release import permission, releases, triton
from kreislauf.settings import settings
from kreislauf.sources import storage
from models import spec

CLOSING_SECONDS = 3.0
"""Time within which a gateway closes the segment that it writes to."""


@flow
def collect() -> dict[str, IngestReport]:
    """Load the gateway's segments into `exposures` and `feedback`, and delete them. It closes the
    one that it writes to before; if it does not, that one waits for the next run.

    Before that, a release that Triton has lost is put back: somebody restarted it elsewhere, or
    with an empty disk.

    It is safe to kill at any point: a segment that is loaded already is only deleted. The worker
    has to see the gateway's folder, `KREISLAUF_SPOOL`. No share of bad lines stops a segment,
    because there is no better one to wait for.

    Returns:
        The accounts of the loads, by table; a table without new segments has none.

    Raises:
        flows.ingest.IngestError: Segments could not be loaded; they stay, all others are deleted.
    """
    for model in spec.names():
        put_back(model)
    reports = {}
    let_gateway_close_its_segments(settings().spools)
    for table, folder in zip(exposures.TABLES, settings().spools, strict=True):
        delete_empty_segments(folder)
        segments = map(str, folder.glob("*.jsonl"))
        if not all(storage.is_hidden(segment, str(folder)) for segment in segments):
            reports[table] = load_and_delete(table, folder)
    return reports


def let_gateway_close_its_segments(folders: Iterable[Path]) -> None:
    """Ask for it with a file in each folder, and wait until they are closed; not long, because the
    gateway may be gone."""
    open_segments = [segment for folder in folders for segment in folder.glob("*.open")]
    wishes = {segment.parent / exposures.COLLECTING for segment in open_segments}
    for wish in wishes:
        wish.touch()
    end = time.monotonic() + CLOSING_SECONDS
    while time.monotonic() < end and any(segment.exists() for segment in open_segments):
        time.sleep(0.1)
    for wish in wishes:
        wish.unlink(missing_ok=True)
    waiting = Counter(segment.parent for segment in open_segments if segment.exists())
    for folder, segments in waiting.items():
        get_run_logger().warning(
            f"The gateway has not closed {segments} of its segments in {folder} within "
            f"{CLOSING_SECONDS:.0f} s: perhaps it does not run. What they hold is not loaded yet. "
            "A gateway that starts closes them, and the next run loads them."
        )


def load_and_delete(table: str, folder: Path) -> IngestReport:
    """Load the segments of a folder, and delete them. Of those that were loaded before, perhaps
    from a folder that was moved, nothing is loaded again. Raises IngestError; the segments that it
    names stay."""
    segments = sources.find(str(folder)).raw_files
    try:
        report = ingest(str(folder), table=table, max_reject_share=1)
    except IngestError as error:
        delete(segment for segment in segments if segment not in error.failed)
        raise
    delete(segments)
    return report


def delete(segments: Iterable[str]) -> None:
    """Delete files that are in the lake."""
    for segment in segments:
        Path(segment).unlink()


def put_back(model: str) -> None:
    """Publish what is live again if Triton answers and does not serve it; a failure stops no
    load."""
    live = releases.current(model)
    logger = get_run_logger()
    if live is None or not settings().triton_url or not spec.load(model).is_served:
        return
    try:
        if triton.is_resident(model, live.champion):
            return
        logger.warning(f"Triton does not serve {model} version {live.champion}: it is put back.")
        publish(model, live.champion)
    except (triton.TritonError, permission.PublishRefused, registry.RegistryError) as error:
        logger.error(f"{model} version {live.champion} is not served. {error}")


def delete_empty_segments(folder: Path) -> None:
    """Delete segments without a line, which ingest would refuse.

    A gateway leaves them that was killed, or whose disk was full, before the first line.
    """
    empty = [path for path in folder.glob("*.jsonl") if not path.stat().st_size]
    for path in empty:
        path.unlink()
