"""Versions that ended the server: beside the entries of the release log stands
`crash-<version>.json` for each."""

from contextlib import suppress

import fsspec
from pydantic import BaseModel, ConfigDict, Field

from kreislauf import object_store
from kreislauf.settings import settings


class Crash(BaseModel):
    """A version that ended Triton while it was loaded; it is never loaded again."""

    model_config = ConfigDict(frozen=True)

    model: str
    version: int
    reason: str
    who: str = Field(description="Flow run or person that tried.")


def record(model: str, version: int, reason: str, who: str) -> None:
    """Note for good that a version ended Triton; a note that is there already stays."""
    note = Crash(model=model, version=version, reason=reason, who=who)
    fs, path = _file(model, version)
    with suppress(FileExistsError):
        object_store.create(fs, path, note.model_dump_json(indent=1).encode())


def read(model: str, version: int) -> Crash | None:
    """The note about a version that ended Triton; None if it never did."""
    fs, path = _file(model, version)
    if not fs.exists(path):
        return None
    return Crash.model_validate_json(fs.cat_file(path))


def _file(model: str, version: int) -> tuple[fsspec.AbstractFileSystem, str]:
    return object_store.locate(settings().releases, model, f"crash-{version}.json")
