"""Small files below a folder or an s3:// prefix, each written whole and at once."""

import os
import tempfile
import time
import uuid
from contextlib import suppress
from pathlib import Path

import fsspec

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
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    for draft in target.parent.glob(f"{target.name}.*.tmp"):
        with suppress(FileNotFoundError):  # Its writer may be done meanwhile.
            if time.time() - draft.stat().st_mtime > DRAFT_SECONDS:
                draft.unlink()
    draft = target.with_name(f"{target.name}.{uuid.uuid4().hex}.tmp")
    draft.write_bytes(content)
    draft.replace(target)


def create(fs: fsspec.AbstractFileSystem, path: str, content: bytes) -> None:
    """Write the file, or raise FileExistsError: of several who try at once, one succeeds."""
    if is_local(fs):
        _link(Path(path), content)
        return
    try:
        fs.pipe_file(path, content, mode="create")
    except OSError as error:
        # The exception differs by server; the status of the conditional put does not.
        response = getattr(error.__cause__, "response", {})
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        if isinstance(error, FileExistsError) or status == PRECONDITION_FAILED:
            raise FileExistsError(path) from error
        raise


def _link(path: Path, content: bytes) -> None:
    """A hard link appears at once and fails if the name is taken; a crash leaves only the draft."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp") as draft:
        draft.write(content)
        draft.flush()
        os.fsync(draft.fileno())
        os.link(draft.name, path)
