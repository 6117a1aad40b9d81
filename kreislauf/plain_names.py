"""A folder with an odd name, by a plain one.

Postgres takes its arguments apart at spaces, and others take `#`, `%` or `?` for parts of an
address. All of them get a link with a plain name instead.
"""

import hashlib
import os
import re
import tempfile
from pathlib import Path

import platformdirs

PLAIN = re.compile(r"[A-Za-z0-9_./+-]+")


def link_to(folder: Path) -> Path:
    """The folder itself if its name is plain, else a link to it, made if need be."""
    if PLAIN.fullmatch(str(folder)):
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    place = platformdirs.user_cache_path("kreislauf")
    if not PLAIN.fullmatch(str(place)):
        place = Path(tempfile.gettempdir()) / f"kreislauf-{os.getuid()}"
    place.mkdir(parents=True, exist_ok=True)
    link = place / hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    if not link.is_symlink():
        link.symlink_to(folder)
    return link
