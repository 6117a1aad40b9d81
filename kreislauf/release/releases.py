"""The release log: what serves, decided by one append-only list of entries per model.

Entry `n` is the object `<releases>/<model>/<n>.json`, created exclusively: an exclusive create on
disk, a conditional put on S3. Two publishers that read the same newest entry cannot both write the
next one.
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

HOLD_BACK_DAYS = 7
"""Days for which a share of the users keeps the version before a release."""
NO_MODEL = 0
"""Challenger of a hold-back whose users get no model, but the answer that is good for everyone."""


class ReleaseConflict(RuntimeError):
    """Another release was written first; nothing was changed."""


class Release(BaseModel):
    """One entry of the log. Versions are registry versions."""

    model_config = ConfigDict(frozen=True)

    model: str
    number: int = Field(ge=1)
    champion: int
    challenger: int | None = Field(
        None, description="Version under an A/B test, or the one that is held back."
    )
    previous: int | None = Field(None, description="Version to roll back to.")
    share: float = Field(0.0, ge=0, le=1, description="Share of users that get the challenger.")
    is_hold_back: bool = Field(
        False,
        description="A share of the users keeps the version before, or gets no model, to see what "
        "the champion is worth.",
    )
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
        return sorted({v for v in (self.champion, self.challenger, self.previous) if v})

    @property
    def is_self_test(self) -> bool:
        """Whether both arms get the same version, so that a difference can only be an error."""
        return self.challenger == self.champion

    @property
    def tested_version(self) -> int | None:
        """The version that may become the champion by an A/B test."""
        if self.is_hold_back or self.is_self_test:
            return None
        return self.challenger

    @property
    def trial(self) -> str:
        """What users are split for, as the beginning of a sentence; empty if they are not."""
        if self.challenger is None:
            return ""
        if self.challenger == NO_MODEL:
            return f"The comparison of version {self.champion} with no model"
        if self.is_hold_back:
            return f"The hold-back of version {self.challenger}"
        if self.is_self_test:
            return f"The self-test of version {self.champion}"
        return f"The A/B test of version {self.challenger} against version {self.champion}"


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
    is_hold_back: bool = False,
) -> Release:
    """Put these versions in force, on the condition that `after` is still the newest entry.

    A test that goes on keeps its salt, so that a changed share moves only the users it must;
    another one gets another. Without `hold`, a hold goes on; an empty one lifts it. A version that
    is `missing` is nobody's `previous`. `flow_run` is the id of who writes, a run of Prefect's.

    Raises ReleaseConflict when someone else wrote meanwhile.
    """
    number = 1
    salt = ""
    if after:
        hold = after.hold if hold is None else hold
        number = after.number + 1
    if after and _arms(after) == (champion, challenger, is_hold_back):
        salt = after.salt
    elif challenger is not None:
        salt = f"{model}-{number}"
    release = Release(
        model=model,
        number=number,
        champion=champion,
        challenger=challenger,
        previous=_previous(champion, after, missing),
        share=share,
        is_hold_back=is_hold_back,
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


def _previous(champion: int, after: Release | None, missing: Collection[int]) -> int | None:
    """The version to roll back to, if one is there that was live before this champion."""
    if after is None:
        return None
    previous = after.previous if after.champion == champion else after.champion
    if previous in missing:
        return None
    return previous


def name(version: int) -> str:
    """A version, or none, as texts say it."""
    if version == NO_MODEL:
        return "no model"
    return f"version {version}"


def _arms(release: Release) -> tuple[int, int | None, bool]:
    """What users are split between, and why."""
    return release.champion, release.challenger, release.is_hold_back


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
