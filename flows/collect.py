"""Collect: what the gateway saw into the lake, and off its disk."""

from pathlib import Path

from prefect import flow

from flows.ingest import IngestReport, ingest
from kreislauf import exposures
from kreislauf.settings import settings


@flow
def collect() -> dict[str, IngestReport]:
    """Load the gateway's closed segments into the tables `exposures` and `feedback`, and delete
    those that are loaded.

    Safe to kill at any point: a segment that is loaded already is only deleted. The worker has to
    see the gateway's folder, `KREISLAUF_SPOOL`. No share of bad lines stops a segment, because
    there is no better one to wait for.

    Returns:
        The accounts of the loads, by table; a table without new segments has none.

    Raises:
        flows.ingest.IngestError: Segments could not be loaded; none is deleted.
    """
    done = {}
    for table, folder in zip(exposures.TABLES, settings().spools, strict=True):
        for empty in [path for path in folder.glob("*.jsonl") if not path.stat().st_size]:
            # Of a gateway that was killed, or whose disk was full, before the first line: ingest
            # refuses empty files.
            empty.unlink()
        if any(folder.glob("*.jsonl")):
            done[table] = ingest(str(folder), table=table, max_reject_share=1)
            for file in done[table].files:
                Path(file.source).unlink()
    return done
