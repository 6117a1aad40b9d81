"""Shards of a batch: each is answered once, and stays answered when the run is killed.

The answers of a shard are a file in the folder of the table `answers`, which no reader sees before
the batch's commit. A small file beside the table's log says which one it is.
"""

import json
import posixpath
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any

import msgspec
import polars as pl
from fsspec import AbstractFileSystem

from kreislauf import object_store, registry
from kreislauf.batch import answers, questions
from kreislauf.batch.batch import Batch
from kreislauf.batch.questions import Form, Questions
from kreislauf.evaluation import scoring
from kreislauf.lake import data_files, storage
from kreislauf.lake.data_files import DataFile
from models import spec
from models.spec import MAX_BATCH

UNFINISHED = "_batches"
"""Folder, in that of the table, with what is known of batches that were begun."""
PLAN = "plan.json"
ANSWERS_AT_ONCE = 200
"""Number of answers that are Python objects at once: so few that the garbage collector does not
begin, which walks the whole process when there are many. With tens of thousands that took three
times as long as writing them."""


def read_plan(name: str) -> Batch | None:
    """The batch as it was begun; None if it was not."""
    with storage.answering(answers.ANSWERS):
        fs, path = _location(name, PLAN)
        if not fs.exists(path):
            return None
        return Batch.model_validate_json(fs.cat_file(path))


def keep_plan(batch: Batch) -> Batch:
    """Note that the batch was begun; of several who begin it, all go on with the first one's."""
    with storage.answering(answers.ANSWERS):
        fs, path = _location(batch.name, PLAN)
        try:
            object_store.create(fs, path, batch.model_dump_json().encode())
        except FileExistsError:
            return Batch.model_validate_json(fs.cat_file(path))
    return batch


def files(batch: Batch) -> dict[int, list[DataFile]]:
    """The files of each shard that is answered."""
    answered = {}
    with storage.answering(answers.ANSWERS):
        fs, folder = _location(batch.name)
        _, table = storage.filesystem(answers.ANSWERS)
        for path in _list(fs, folder):
            # Another run of the batch may have finished it meanwhile.
            with suppress(FileNotFoundError):
                note = json.loads(fs.cat_file(path))
                if note.get("shards") != batch.shards:
                    continue
                of_shard = [DataFile.model_validate(file) for file in note["files"]]
                # What no commit names is swept after some days.
                if all(fs.exists(f"{table}/{file.path}") for file in of_shard):
                    answered[note["shard"]] = of_shard
    return answered


def write(batch: Batch, number: int) -> int:
    """Answer a shard, and note that it is answered; the number of its requests.

    Raises RegistryError if the version's file is not there, LakeError or SourceError if the
    requests are not.
    """
    opened = session(batch)
    pieces = [answer(batch, asked, opened) for asked in questions.of_shard(batch, number)]
    rows = pl.concat([answers.no_rows(), *pieces])
    written = []
    if rows.height:
        written.append(data_files.put(answers.ANSWERS, {answers.BATCH: batch.name}, rows))
    note = {
        "shard": number,
        "shards": batch.shards,
        "files": [file.model_dump() for file in written],
    }
    with storage.answering(answers.ANSWERS):
        fs, path = _location(batch.name, f"shard-{number:05}.json")
        object_store.replace(fs, path, json.dumps(note).encode())
    return rows.height


def answer(batch: Batch, asked: Questions, opened: Any) -> pl.DataFrame:
    """Rows of `answers` for some requests, by an open onnxruntime.InferenceSession."""
    model_type = spec.load(batch.model)
    texts: list[str] = []
    if len(asked):
        outputs = scoring.answer(opened, asked.inputs, MAX_BATCH)
        for first in range(0, len(asked), ANSWERS_AT_ONCE):
            rows = slice(first, first + ANSWERS_AT_ONCE)
            part = {name: values[rows] for name, values in outputs.items()}
            texts += _texts(model_type, part, asked.forms[rows])
    return answers.rows(batch, asked, texts)


def _texts(model_type: spec.ModelSpec, outputs: spec.Tensors, forms: Sequence[Form]) -> list[str]:
    """The JSON of each answer."""
    replies = model_type.answers(outputs)
    if forms:
        replies = [form(reply) for form, reply in zip(forms, replies, strict=True)]
    return [msgspec.json.encode(reply).decode() for reply in replies]


def session(batch: Batch) -> Any:
    """An onnxruntime.InferenceSession of the batch's version, on one thread, which the threads of
    this process share. Raises RegistryError if the version is not there."""
    return _opened(batch.model, batch.version, batch.onnx)


@lru_cache(maxsize=1)
def _opened(model: str, version: int, digest: str) -> Any:
    """The session of a file, which is fetched and checked once, not for each shard."""
    registered = registry.get(model, version)
    if registered.digests["model.onnx"] != digest:
        raise registry.RegistryError(
            f"{model} version {version} has another file than when the batch was planned: run "
            "score again."
        )
    return scoring.one_thread(registry.onnx_file(registered))


def forget(batch: Batch) -> None:
    """Remove what was noted of a batch that is committed, and of earlier ones of its place."""
    with storage.answering(answers.ANSWERS):
        fs, root = _location()
        for folder in _list(fs, root):
            if posixpath.basename(folder).startswith(f"{batch.place}-"):
                # Another run of the batch may do the same.
                with suppress(FileNotFoundError):
                    fs.rm(folder, recursive=True)


def _list(fs: AbstractFileSystem, folder: str) -> list[str]:
    """Paths in a folder, but for the plan; none if there is no such folder."""
    try:
        paths = fs.ls(folder, detail=False)
    except FileNotFoundError:
        return []
    return [path for path in map(str, paths) if posixpath.basename(path.rstrip("/")) != PLAN]


def _location(*names: str) -> tuple[AbstractFileSystem, str]:
    return object_store.locate(storage.uri(answers.ANSWERS), UNFINISHED, *names)
