"""The requests of a shard, in pieces that fit in memory."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import polars as pl

from kreislauf import lake
from kreislauf.batch.batch import Batch
from kreislauf.clock import DAY_MS
from kreislauf.sources import RawFile, SourceError, endings, storage
from models import spec
from models.mapped_requests import MappedRequests
from models.table import RawLines, Table

PIECE_ROWS = 50_000
"""Rows of a window, about, whose requests are in memory together."""
PIECE_LINES = 1_000
"""Lines of a file of requests that are in memory together."""
Form = Callable[[dict], dict]
"""How an answer is written."""


@dataclass(frozen=True)
class Questions:
    """Some requests of a batch."""

    names: list[str]
    """Of the `n` requests that can be asked: unique in the batch."""
    ids: list[str]
    """Of the same, as whoever asks calls them."""
    inputs: spec.Tensors
    """ONNX inputs with `n` rows."""
    forms: Sequence[Form] = ()
    """How each answer is written; empty: as it is."""
    refusals: Sequence[tuple[str, str, str]] = ()
    """Name and id of others, and why they cannot be asked."""

    def __len__(self) -> int:
        return len(self.names)


def of_shard(batch: Batch, number: int) -> Iterator[Questions]:
    """The requests of the shard `number` of the batch, counted from 0.

    Raises LakeError or SourceError if what is asked is not there any more.
    """
    model_type = spec.load(batch.model)
    if batch.table_version is None:
        return _of_lines(model_type, batch, number)
    return _of_groups(model_type, batch, number)


def _of_groups(model_type: spec.ModelSpec, batch: Batch, number: int) -> Iterator[Questions]:
    """The requests of whole groups with a row in the window, with what is known of each until the
    window's end; of the time before it, a day counts. Of lasting groups, whose rows have all that a
    request needs, only the rows in the window are asked."""
    assert batch.start is not None
    table = model_type.table
    deal = unit(table).hash(0)
    with lake.reading(table):
        rows = lake.scan(table, batch.table_version, first_time(table, batch.start), batch.end)
        rows_of_shard = rows.filter(deal % batch.shards == number).collect(engine="streaming")
    is_active = (pl.col(table.time) >= batch.start).any().over(table.group)
    active_rows = rows_of_shard.filter(is_active)
    pieces = max(1, math.ceil(active_rows.height / PIECE_ROWS))
    for piece in range(pieces):
        dealt = active_rows.filter(deal // batch.shards % pieces == piece)
        names, inputs = model_type.requests(dealt.sort(table.order))
        texts = [str(name) for name in names.tolist()]
        yield Questions(texts, texts, inputs)


def unit(table: Table) -> pl.Expr:
    """What is dealt out to shards: groups, or, of lasting groups, which may have any number of
    requests, their times."""
    if table.lasting:
        return pl.struct(table.group, table.time)
    return pl.col(table.group)


def first_time(table: Table, start: int) -> int:
    """From which time on (ms) rows count for requests of a window that begins at `start` (ms)."""
    if table.lasting:
        return start
    return start - DAY_MS


def open_requests(model_type: spec.ModelSpec, path: str) -> RawFile:
    """A file of requests. Raises SourceError if it cannot be read, or has no lines of JSON."""
    if endings.is_csv(path) or endings.is_parquet(path):
        raise SourceError(
            f"{path} has no requests: give a file of JSON lines, one request in each, as the "
            "gateway takes it."
        )
    return RawFile(path, model_type.table)


def lines_of(file: RawFile) -> Iterator[RawLines]:
    """The lines of a file of requests, in pieces."""
    for part in file.chunks():
        assert isinstance(part, RawLines)
        yield part


def _of_lines(model_type: spec.ModelSpec, batch: Batch, number: int) -> Iterator[Questions]:
    """The requests in the shard's share of the lines."""
    mapped = None
    if batch.mapping:
        mapped = MappedRequests(model_type, batch.mapping)
    share = math.ceil(batch.units / batch.shards)
    file = open_requests(model_type, batch.source)
    if file.stamp != batch.stamp:
        raise storage.changed_error(batch.source)
    first = 0
    for part in lines_of(file):
        for start in range(0, len(part), PIECE_LINES):
            positions = range(start, min(start + PIECE_LINES, len(part)))
            lines = [
                (int(part.numbers[i]), part.line(i))
                for i in positions
                if (first + i) // share == number
            ]
            if lines:
                yield _asked(model_type, lines, mapped)
        first += len(part)


def _asked(
    model_type: spec.ModelSpec, lines: Sequence[tuple[int, bytes]], mapped: MappedRequests | None
) -> Questions:
    """What lines, with their numbers, ask, in the words of the model type or in those that are
    `mapped`; of those that are no request, why not."""
    names = []
    ids = []
    tensors = []
    forms = []
    refusals = []
    for number, line in lines:
        if not line.strip():
            continue
        own_id = str(number)
        try:
            request = _request(line)
            own_id = _own_id(request) or own_id
            if mapped:
                request = mapped.request(request)
            request.pop("user", None)  # The gateway takes it out, too: it is no part of a question.
            tensors.append(model_type.tensors([request]))
            forms.append(model_type.answer_form(request))
            names.append(str(number))
            ids.append(own_id)
        except (ValueError, RecursionError) as error:
            reason = str(error).removeprefix("Request 0: ")
            refusals.append((str(number), own_id, f"Line {number}: {reason}"))
    if not tensors:
        tensors = [model_type.tensors([])]
    inputs = {field: np.concatenate([asked[field] for asked in tensors]) for field in tensors[0]}
    return Questions(names, ids, inputs, forms, refusals)


def _request(line: bytes) -> dict[str, Any]:
    """The object of JSON in a line. Raises ValueError if there is none, RecursionError if it is
    nested too deeply."""
    request = msgspec.json.decode(line)
    if not isinstance(request, dict):
        raise ValueError("a request is an object of JSON, such as {...}.")
    return request


def _own_id(request: dict[str, Any]) -> str | None:
    """Takes the request's own id out of it; None without one. Raises ValueError if it is neither
    text nor a whole number."""
    own_id = request.pop("id", None)
    if own_id is None:
        return None
    if isinstance(own_id, bool) or not isinstance(own_id, str | int):
        raise ValueError(f'"id" must be text or a whole number, not {str(own_id)[:100]}.')
    return str(own_id)
