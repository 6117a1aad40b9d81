"""Plan a batch: how many requests there are, and in how many shards they are answered."""

import math
import os
import time
from collections.abc import Sequence
from typing import Any

import polars as pl

from kreislauf import lake, registry
from kreislauf.batch import questions, shards
from kreislauf.batch.batch import Batch
from kreislauf.clock import DAY_MS, when
from kreislauf.settings import settings
from kreislauf.sources import storage
from models import mapping as mappings
from models import spec
from models.mapped_requests import MappedRequests
from models.mapping import Mapping

SHARD_SECONDS = 60.0
"""Most seconds of work, about, that a shard takes on one core."""
SHORTEST_SECONDS = 5.0
"""Fewest seconds of work, about, for which a shard is worth its own task."""
CORES = len(os.sched_getaffinity(0))
"""Cores of this process."""
TRIAL = 512
"""Groups or lines, about, that are asked to learn how long they take; fewer than twice as many are
one shard."""


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
    """The batch that asks for what happened from `start` to `end` (ms since 1970 UTC, the end
    exclusive), as `questions.of_shard` does.

    Raises ValueError if the window is empty, LakeError if there is no table.
    """
    if start >= end:
        raise ValueError(f"The window from {when(start)} to {when(end)} UTC is empty.")
    table = spec.load(version.model).table
    table_version = lake.version(table)
    first = questions.first_time(table, start)
    with lake.reading(table):
        rows = lake.scan(table, table_version, first, end)
        inside = pl.col(table.time) >= start
        units = questions.unit(table).filter(inside).n_unique()
        height, count = rows.select(pl.len(), units=units).collect(engine="streaming").row(0)
    fields = {
        "source": table.name,
        "table_version": table_version,
        "start": start,
        "end": end,
        "ts": end - 1,
        "units": count,
    }
    # Rows are only ever added: their number says whether some are new. Polars deals groups out to
    # shards, another Polars perhaps otherwise.
    return _in_shards(version, [table.name, start, end], [height, pl.__version__], fields)


def mapping_of(model_type: spec.ModelSpec, path: str | None) -> Mapping | None:
    """The mapping in a YAML file by which requests are read; without a path that of the gateway,
    if it has one for this model type. Raises MappingError if it cannot be used."""
    named, mapping = mappings.find(path or settings().mapping or None, path and model_type.name)
    if mapping is None or named.name != model_type.name:
        return None
    return MappedRequests(model_type, mapping).mapping


def of_file(version: registry.Version, path: str, mapping: Mapping | None = None) -> Batch:
    """The batch that asks each line of a file of requests, which a mapping may read.

    Raises SourceError if the file cannot be read, or has no lines of JSON.
    """
    model_type = spec.load(version.model)
    if not storage.on_s3(path):
        path = os.path.abspath(path)
    file = questions.open_requests(model_type, path)
    fields = {
        "source": path,
        "mapping": mapping,
        "stamp": file.stamp,
        "ts": lake.watermark(model_type.table) or version.lineage.watermark,
        "units": sum(len(lines) for lines in questions.lines_of(file)),
    }
    content = [file.stamp]
    if mapping:
        content.append(mapping.digest)
    return _in_shards(version, [path], content, fields)


def _in_shards(
    version: registry.Version,
    place: Sequence[Any],
    content: Sequence[Any],
    fields: dict[str, Any],
) -> Batch:
    """The batch in shards of about `SHARD_SECONDS`, or in those in which it was begun before."""
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
        # Its version of the table may be swept; this one has the same rows in the window.
        return batch.model_copy(update={"shards": unfinished.shards})
    if batch.units >= 2 * TRIAL:
        batch = batch.model_copy(update={"shards": shard_count(seconds(batch), CORES)})
    return batch.model_copy(update={"shards": shards.keep_plan(batch).shards})


def shard_count(seconds: float, cores: int) -> int:
    """Number of shards for `seconds` of work: none takes longer than `SHARD_SECONDS`, and all
    `cores` have as many, unless they would be shorter than `SHORTEST_SECONDS`."""
    rounds = math.ceil(seconds / (cores * SHARD_SECONDS))
    return max(1, min(rounds * cores, int(seconds / SHORTEST_SECONDS)))


def seconds(batch: Batch) -> float:
    """Seconds that one core takes to answer the batch, by a part of it with about `TRIAL` units.

    Reading does not count: to find a small part of the rows takes as long as to find a large one.
    """
    trial = batch.model_copy(update={"shards": max(1, batch.units // TRIAL)})
    session = shards.session(batch)
    asked = next(questions.of_shard(trial, 0), None)
    if asked is None:
        return 0.0
    began = time.perf_counter()
    shards.answer(trial, asked, session)
    return (time.perf_counter() - began) * trial.shards
