"""A full disk is called one: which folder is on it, and what to do."""

import errno
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SIGNS = (
    "No space left on device",
    "Disk quota exceeded",
    "disk is full",  # SQLite
    "unexpected pos",  # PyTorch, when the disk took less than it was given.
)
"""What libraries say of a full disk that do not hand on the number of the error."""


class DiskFull(OSError):
    """A disk is full; the message says whose folder is on it. The same call succeeds later, once
    there is room."""


def is_full(error: BaseException) -> bool:
    """Whether an error means that a disk is full. What this library has said of it already, a
    DiskFull or a ValueError, does not count."""
    if isinstance(error, DiskFull | ValueError):
        return False
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        return True
    return any(sign in str(error) for sign in SIGNS)


@contextmanager
def named(folders: Mapping[Any, str]) -> Iterator[None]:
    """A full disk becomes DiskFull. Of the `folders` (paths) that are written to, it names the one
    with the least room, and the variable that moves it."""
    try:
        yield
    except Exception as error:
        if not is_full(error):
            raise
        fullest = min(folders, key=free_bytes)
        free = free_bytes(fullest) >> 10
        why = getattr(error, "strerror", None) or "no space is left"
        raise DiskFull(
            f"The disk of {fullest} is full ({why}; {free} KiB are free). Make "
            f"room there, or set {folders[fullest]} to a folder on a larger disk, and run again. "
            "What was stored before is whole."
        ) from error


def free_bytes(folder: str | Path) -> int:
    """Bytes that are free on the disk of a folder, which need not be there yet."""
    place = Path(folder).absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free
