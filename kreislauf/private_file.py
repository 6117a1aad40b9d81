"""Files that only their owner can read, because they hold a token or a secret."""

import os
import tempfile
from contextlib import suppress
from pathlib import Path


def write(path: Path, content: str) -> None:
    """Write the file at once, in the place of one that is there."""
    _draft(path, content).replace(path)


def kept(path: Path, content: str) -> str:
    """What the file holds; it is created with `content` if it is not there. Of several who try at
    once, one succeeds."""
    if not path.exists():
        draft = _draft(path, content)
        with suppress(FileExistsError):
            os.link(draft, path)
        draft.unlink()
    return path.read_text()


def _draft(path: Path, content: str) -> Path:
    """A file beside `path` with its content, which is on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    number, name = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(number, "w") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return Path(name)
