"""Small files below a folder or an s3:// prefix, each written whole and at once."""

import os
import time
import uuid
from contextlib import suppress
from pathlib import Path

import fsspec

from kreislauf import full_disk

PRECONDITION_FAILED = 412
"""HTTP status of a conditional put whose name is taken."""
DRAFT_SECONDS = 3_600
"""Age from which a draft is taken for one that a killed process has left."""


def locate(root: str, *names: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of an address, and the path of `names` below it.

    What other processes have written since is seen: listings are not taken from a cache.
    """
    fs, path = fsspec.core.url_to_fs(root)
    fs.invalidate_cache()
    return fs, "/".join([path.rstrip("/"), *names])


def is_local(fs: fsspec.AbstractFileSystem) -> bool:
    """Whether the files are on this machine's disks."""
    return "file" in fs.protocol


def replace(fs: fsspec.AbstractFileSystem, path: str, content: bytes) -> None:
    """Write the file, or put it in place of the one that is there; a reader sees the one or the
    other, whole."""
    if not is_local(fs):
        fs.pipe_file(path, content)
        return
    draft = _draft(Path(path), content)
    draft.replace(path)


def _draft(target: Path, content: bytes) -> Path:
    """A file beside `target` with its content, which is on the disk; what killed processes left is
    swept. Who may read it is said by the umask. Raises DiskFull."""
    target.parent.mkdir(parents=True, exist_ok=True)
    for left in target.parent.glob(f"{target.name}.*.tmp"):
        with suppress(FileNotFoundError):  # Its writer may be done meanwhile.
            if time.time() - left.stat().st_mtime > DRAFT_SECONDS:
                left.unlink()
    draft = target.with_name(f"{target.name}.{uuid.uuid4().hex}.tmp")
    try:
        with full_disk.named({target.parent: "its KREISLAUF_ variable"}), draft.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        draft.unlink(missing_ok=True)
        raise
    return draft


def create(fs: fsspec.AbstractFileSystem, path: str, content: bytes) -> None:
    """Write the file, or raise FileExistsError: of several who try at once, one succeeds.

    Who asks S3 again because an answer was lost finds the own file there: that is a success.
    """
    if is_local(fs):
        _link(Path(path), content)
        return
    try:
        fs.pipe_file(path, content, mode="create")
    except OSError as error:
        # The exception differs by server; the status of the conditional put does not.
        response = getattr(error.__cause__, "response", {})
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        if not isinstance(error, FileExistsError) and status != PRECONDITION_FAILED:
            raise
        if fs.cat_file(path) != content:
            raise FileExistsError(path) from error


def _link(path: Path, content: bytes) -> None:
    """A hard link appears at once and fails if the name is taken; a crash leaves only the draft."""
    draft = _draft(path, content)
    try:
        os.link(draft, path)
    finally:
        draft.unlink()
