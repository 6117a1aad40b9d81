"""Plan a batch: how many requests there are, and in how many shards they are answered."""

import math
import time
from collections.abc import Sequence
from typing import Any

import polars as pl

from kreislauf import lake, registry
from kreislauf.batch import questions, shards
from kreislauf.batch.batch import Batch
from kreislauf.clock import DAY_MS, when
from models import spec

SHARD_SECONDS = 60.0
"""Seconds of work, about, that a shard takes on one core."""
TRIAL = 512
"""Requests, about, that are asked to learn how long one takes; fewer than twice as many are one
shard."""


def newest_day(model_type: spec.ModelSpec) -> tuple[int, int]:
    """The newest whole day (UTC) of the model type's table: ms since 1970, the end exclusive.

    Raises LakeError if it has no rows.
    """
    watermark = lake.watermark(model_type.table)
    if watermark is None:
        raise lake.LakeError(
            f"There are no rows in {model_type.table.name} to be scored: ingest some first, or "
            "name a file of requests."
        )
    end = (watermark + 1) // DAY_MS * DAY_MS
    return end - DAY_MS, end


def of_window(version: registry.Version, start: int, end: int) -> Batch:
    """The batch that asks for each group with a row from `start` to `end` (ms since 1970 UTC, the
    end exclusive).

    Raises ValueError if the window is empty, LakeError if there is no table.
    """
    if start >= end:
        raise ValueError(f"The window from {when(start)} to {when(end)} UTC is empty.")
    table = spec.load(version.model).table
    table_version = lake.version(table)
    with lake.reading(table):
        rows = lake.scan(table, table_version, start, end)
        counts = rows.select(pl.len(), groups=pl.col(table.group).n_unique())
        height, groups = counts.collect(engine="streaming").row(0)
    fields = {
        "source": table.name,
        "table_version": table_version,
        "start": start,
        "end": end,
        "ts": end - 1,
        "requests": groups,
    }
    # Rows are only ever added: their number says whether some are new. Polars deals groups out to
    # shards, another Polars perhaps otherwise.
    return _in_shards(version, [table.name, start, end], [height, pl.__version__], fields)


def of_file(version: registry.Version, path: str) -> Batch:
    """The batch that asks each line of a file of requests.

    Raises SourceError if the file cannot be read, or has no lines of JSON.
    """
    model_type = spec.load(version.model)
    file = questions.open_requests(model_type, path)
    fields = {
        "source": path,
        "ts": lake.watermark(model_type.table) or version.lineage.watermark,
        "requests": sum(len(lines) for lines in questions.lines_of(file)),
    }
    return _in_shards(version, [path], [file.stamp], fields)


def _in_shards(
    version: registry.Version,
    place: Sequence[Any],
    content: Sequence[Any],
    fields: dict[str, Any],
) -> Batch:
    """The batch in shards of about `SHARD_SECONDS`, or as it was begun before."""
    onnx = version.digests["model.onnx"]
    place_name = f"{version.model}-{version.number}-{registry.digest_inputs(*place)[:8]}"
    batch = Batch(
        name=f"{place_name}-{registry.digest_inputs(onnx, *content)[:8]}",
        place=place_name,
        model=version.model,
        version=version.number,
        onnx=onnx,
        **fields,
    )
    unfinished = shards.read_plan(batch.name)
    if unfinished:
        return unfinished
    if batch.requests >= 2 * TRIAL:
        seconds = seconds_a_request(batch) * batch.requests
        batch = batch.model_copy(update={"shards": max(1, math.ceil(seconds / SHARD_SECONDS))})
    return shards.keep_plan(batch)


def seconds_a_request(batch: Batch) -> float:
    """Seconds in which one core answers a request, over about `TRIAL` of them."""
    trial = batch.model_copy(update={"shards": max(1, batch.requests // TRIAL)})
    session = shards.session(batch)
    asked = next(questions.of_shard(trial, 0))
    began = time.perf_counter()
    shards.answer(trial, asked, session)
    return (time.perf_counter() - began) / max(1, len(asked))
