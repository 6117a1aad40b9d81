"""Who gets which version: a stable hash of the user and the experiment's salt."""

from hashlib import blake2b
from typing import NamedTuple

from kreislauf.exposures import Arm
from kreislauf.release.releases import Release


class Assignment(NamedTuple):
    """Which version a user should get."""

    version: int
    arm: Arm
    release: Release
    """The release that was in force."""


def bucket(user: str, salt: str) -> float:
    """The user's position in [0, 1): uniform over users, independent between salts."""
    return int.from_bytes(blake2b(f"{salt}\n{user}".encode(), digest_size=6).digest()) / 2**48


def assign(release: Release, user: str) -> Assignment:
    """Version and arm of a user.

    A changed share moves only the users between the old share and the new.
    """
    if release.challenger is not None and bucket(user, release.salt) < release.share:
        return Assignment(release.challenger, "challenger", release)
    return Assignment(release.champion, "champion", release)
