"""The release log: what serves, decided by one append-only list of entries per model.

Entry `n` is the object `<releases>/<model>/<n>.json`, created exclusively: an exclusive create on
disk, a conditional put on S3. Two publishers that read the same newest entry cannot both write the
next one.
"""

import os
import re
import tempfile
from pathlib import Path

import fsspec
from pydantic import BaseModel, ConfigDict, Field

from kreislauf.settings import settings


class ReleaseConflict(RuntimeError):
    """Another release was written first; nothing was changed."""


class Release(BaseModel):
    """One entry of the log. Versions are registry versions."""

    model_config = ConfigDict(frozen=True)

    model: str
    number: int = Field(ge=1)
    champion: int
    challenger: int | None = Field(None, description="Version under an A/B test.")
    previous: int | None = Field(None, description="Version to roll back to.")
    share: float = Field(0.0, ge=0, le=1, description="Share of users that get the challenger.")
    salt: str = Field("", description="Of the hash that assigns users.")
    watermark: int | None = Field(
        None, description="Newest event that the champion learnt from, ms since 1970."
    )
    reason: str
    who: str = Field(description="Flow run or person.")

    @property
    def versions(self) -> list[int]:
        """Every version that has to be resident in Triton."""
        return sorted({v for v in (self.champion, self.challenger, self.previous) if v is not None})


def history(model: str) -> list[Release]:
    """All entries of a model, oldest first; empty when it never went live."""
    fs, paths = _entries(model)
    return [Release.model_validate_json(fs.cat_file(path)) for path in paths]


def current(model: str) -> Release | None:
    """The entry in force: the newest one."""
    fs, paths = _entries(model)
    return Release.model_validate_json(fs.cat_file(paths[-1])) if paths else None


def append(
    model: str,
    champion: int,
    reason: str,
    who: str,
    after: Release | None,
    challenger: int | None = None,
    share: float = 0.0,
    watermark: int | None = None,
) -> Release:
    """Put these versions in force, on the condition that `after` is still the newest entry.

    A test that goes on keeps its salt, so that a changed share moves only the users it must;
    another one gets another.

    Raises ReleaseConflict when someone else wrote meanwhile.
    """
    number = after.number + 1 if after else 1
    same = after is not None and (after.champion, after.challenger) == (champion, challenger)
    release = Release(
        model=model,
        number=number,
        champion=champion,
        challenger=challenger,
        previous=after and (after.previous if after.champion == champion else after.champion),
        share=share,
        salt=after.salt if after and same else f"{model}-{number}" if challenger else "",
        watermark=watermark,
        reason=reason,
        who=who,
    )
    fs, folder = _folder(model)
    try:
        _create(fs, f"{folder}/{release.number}.json", release.model_dump_json(indent=1).encode())
    except FileExistsError as error:
        raise ReleaseConflict(
            f"Release {release.number} of {model} exists already: someone else published meanwhile. "
            f"Version {champion} was not made live; judge it against the new champion and publish again."
        ) from error
    return release


def _folder(model: str) -> tuple[fsspec.AbstractFileSystem, str]:
    fs, root = fsspec.core.url_to_fs(settings().releases)
    return fs, f"{root.rstrip('/')}/{model}"


def _entries(model: str) -> tuple[fsspec.AbstractFileSystem, list[str]]:
    """Paths of the entries, oldest first."""
    fs, folder = _folder(model)
    fs.invalidate_cache()
    if not fs.exists(folder):
        return fs, []
    numbered = {
        int(m[1]): path
        for path in fs.ls(folder, detail=False)
        if (m := re.search(r"/(\d+)\.json$", path))
    }
    return fs, [numbered[number] for number in sorted(numbered)]


def _create(fs: fsspec.AbstractFileSystem, path: str, content: bytes) -> None:
    """Create `path` with its whole content, or raise FileExistsError."""
    if "file" in fs.protocol:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        # A hard link appears at once and fails if the name is taken; a crash leaves only the draft
        # behind.
        with tempfile.NamedTemporaryFile(dir=Path(path).parent, suffix=".tmp") as draft:
            draft.write(content)
            draft.flush()
            os.fsync(draft.fileno())
            os.link(draft.name, path)
        return
    try:
        fs.pipe_file(path, content, mode="create")
    except OSError as error:
        # The exception differs by server; the status of the conditional put does not.
        cause = getattr(error.__cause__, "response", {})
        if (
            isinstance(error, FileExistsError)
            or cause.get("ResponseMetadata", {}).get("HTTPStatusCode") == 412
        ):
            raise FileExistsError(path) from error
        raise
