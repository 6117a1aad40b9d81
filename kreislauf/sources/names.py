"""What the source is called that files come from: its clock goes by that name."""

import os
import re
from urllib.parse import urlsplit

DATED = re.compile(r"(?=.*\d)[\d._:T-]+|[^=]+=.*")
"""Name of a folder that is a date or a number, or a column's value, as `2026-11` and `day=3`."""


def name(place: str, is_file: bool) -> str:
    """The name of the source at a path or an s3:// address: of a file its folder, and without the
    folders at the end that are named by a date, a number or a column's value.

    So each month's folder is of the same source. Query strings and credentials are left out.
    """
    head = "/"
    path = os.path.abspath(place)
    if "://" in place:
        parts = urlsplit(place)
        head = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        path = parts.path
    folders = path.strip("/").split("/")
    if is_file:
        folders = folders[:-1]
    while folders and DATED.fullmatch(folders[-1]):
        folders = folders[:-1]
    return "/".join([head.rstrip("/"), *filter(None, folders)]) or "/"
