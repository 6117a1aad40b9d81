"""The release log: what serves, decided by one append-only list of entries per model.

Entry `n` is the object `<releases>/<model>/<n>.json`, created exclusively: an exclusive create on
disk, a conditional put on S3. Two publishers that read the same newest entry cannot both write the
next one.

Beside the entries stands `crash-<version>.json` for each version that ended the server.
"""

import re
import time
import uuid
from collections.abc import Collection, Sequence
from contextlib import suppress

import fsspec
from pydantic import BaseModel, ConfigDict, Field

from kreislauf import object_store
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
    salt: str = Field("", description="Salt of the hash that assigns users to variants.")
    watermark: int | None = Field(
        None, description="Newest event that the champion learnt from, ms since 1970."
    )
    hold: str = Field("", description="Why nothing is published without a person; empty if it is.")
    reason: str
    who: str = Field(description="Flow run or person.")
    flow_run: str = Field("", description="Id of Prefect's run that wrote it; old entries lack it.")
    token: str = Field("", description="Tells entries apart that say the same.")
    at: int | None = Field(
        None, description="When it was written, ms since 1970 UTC on the wall clock."
    )

    @property
    def versions(self) -> list[int]:
        """Every version that has to be resident in Triton."""
        return sorted({v for v in (self.champion, self.challenger, self.previous) if v is not None})


class Crash(BaseModel):
    """A version that ended Triton while it was loaded; it is never loaded again."""

    model_config = ConfigDict(frozen=True)

    model: str
    version: int
    reason: str
    who: str = Field(description="Flow run or person that tried.")


def history(model: str, newest: int = 0) -> list[Release]:
    """All entries of a model, or the `newest` ones, oldest first; empty when it never went live."""
    fs, paths = _entries(model)
    return [Release.model_validate_json(fs.cat_file(path)) for path in paths[-newest:]]


def changes(log: Sequence[Release]) -> list[int]:
    """Positions in the log, from 0, of the entries with another champion than the one before; the
    first is one."""
    return [
        number
        for number, entry in enumerate(log)
        if number == 0 or entry.champion != log[number - 1].champion
    ]


def first(model: str) -> Release | None:
    """The first entry; None if nothing ever went live."""
    fs, paths = _entries(model)
    if not paths:
        return None
    return Release.model_validate_json(fs.cat_file(paths[0]))


def beginning(release: Release) -> Release:
    """The entry since which the champion of `release` is live without a break."""
    fs, paths = _entries(release.model)
    for path in reversed(paths[: release.number - 1]):
        earlier = Release.model_validate_json(fs.cat_file(path))
        if earlier.champion != release.champion:
            break
        release = earlier
    return release


def current(model: str) -> Release | None:
    """The entry in force: the newest one."""
    fs, paths = _entries(model)
    if not paths:
        return None
    return Release.model_validate_json(fs.cat_file(paths[-1]))


def champion(model: str) -> int | None:
    """The version that is live; None if nothing is."""
    release = current(model)
    if release is None:
        return None
    return release.champion


def champion_at(model: str, time: int) -> int | None:
    """The version that was live at a time of the data (ms since 1970 UTC): of those that had learnt
    from earlier rows only, the one with the newest; None if there was none.

    The log does not say when, in the data's time, a version was rolled back.
    """
    earlier = [r for r in history(model) if r.watermark is not None and r.watermark < time]
    if not earlier:
        return None
    return max(reversed(earlier), key=lambda release: release.watermark or 0).champion


def hold(model: str) -> str:
    """Why nothing is published without a person; empty if nothing is on hold."""
    release = current(model)
    if release is None:
        return ""
    return release.hold


def append(
    model: str,
    champion: int,
    reason: str,
    who: str,
    after: Release | None,
    challenger: int | None = None,
    share: float = 0.0,
    watermark: int | None = None,
    hold: str | None = None,
    missing: Collection[int] = (),
    flow_run: str | None = None,
) -> Release:
    """Put these versions in force, on the condition that `after` is still the newest entry.

    A test that goes on keeps its salt, so that a changed share moves only the users it must;
    another one gets another. Without `hold`, a hold goes on; an empty one lifts it. A version that
    is `missing` is nobody's `previous`. `flow_run` is the id of who writes, a run of Prefect's.

    Raises ReleaseConflict when someone else wrote meanwhile.
    """
    number = 1
    previous = None
    salt = ""
    if after:
        hold = after.hold if hold is None else hold
        number = after.number + 1
        previous = after.previous if after.champion == champion else after.champion
    if previous in missing:
        previous = None
    if after and (after.champion, after.challenger) == (champion, challenger):
        salt = after.salt
    elif challenger:
        salt = f"{model}-{number}"
    release = Release(
        model=model,
        number=number,
        champion=champion,
        challenger=challenger,
        previous=previous,
        share=share,
        salt=salt,
        watermark=watermark,
        hold=hold or "",
        reason=reason,
        who=who,
        flow_run=flow_run or "",
        token=uuid.uuid4().hex,
        at=int(time.time() * 1000),
    )
    fs, path = object_store.locate(settings().releases, model, f"{number}.json")
    try:
        object_store.create(fs, path, release.model_dump_json(indent=1).encode())
    except FileExistsError as error:
        raise ReleaseConflict(
            f"Release {number} of {model} exists already: someone else published meanwhile. "
            f"Version {champion} was not made live; judge it against the new champion and publish "
            "again."
        ) from error
    return release


def record_crash(model: str, version: int, reason: str, who: str) -> None:
    """Note for good that a version ended Triton; a note that is there already stays."""
    note = Crash(model=model, version=version, reason=reason, who=who)
    fs, path = _crash_note(model, version)
    with suppress(FileExistsError):
        object_store.create(fs, path, note.model_dump_json(indent=1).encode())


def crash(model: str, version: int) -> Crash | None:
    """The note about a version that ended Triton; None if it never did."""
    fs, path = _crash_note(model, version)
    if not fs.exists(path):
        return None
    return Crash.model_validate_json(fs.cat_file(path))


def _crash_note(model: str, version: int) -> tuple[fsspec.AbstractFileSystem, str]:
    return object_store.locate(settings().releases, model, f"crash-{version}.json")


def _entries(model: str) -> tuple[fsspec.AbstractFileSystem, list[str]]:
    """Paths of the entries, oldest first. Raises PermissionError: a log that this process must not
    read is not an empty one."""
    fs, folder = object_store.locate(settings().releases, model)
    numbered = {}
    paths = []
    with suppress(FileNotFoundError):
        paths = fs.ls(folder, detail=False)
    for path in paths:
        match = re.search(r"/(\d+)\.json$", path)
        if match:
            numbered[int(match[1])] = path
    return fs, [numbered[number] for number in sorted(numbered)]
