"""Raw files: find them in a folder or on S3, and read them whole.

S3's endpoint and credentials are the usual AWS variables, which botocore reads.
"""

import gzip
import hashlib
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from s3fs import S3FileSystem

ENDINGS = (".jsonl", ".jsonl.gz")
CONNECT_SECONDS, READ_SECONDS = 3, 8


class SourceError(ValueError):
    """Raw data cannot be found or read; the message says what, where, and what to do."""


class SourceUnreachable(SourceError, ConnectionError):
    """The place does not answer: the same call may succeed later."""


@dataclass(frozen=True)
class RawFile:
    """One raw file as it is stored."""

    path: str
    sha256: str
    """Hex digest of the stored (compressed) bytes."""
    lines: list[bytes]
    """Unpacked content, cut at each line feed, which is left out; otherwise unchanged."""


def find(source: str) -> list[str]:
    """Paths of the raw files in `source`, sorted: a file, a folder (with all below it) or an s3:// prefix.

    Raises SourceError if there is none, SourceUnreachable if S3 does not answer.
    """
    found = _find_on_s3(source) if source.startswith("s3://") else _find_on_disk(source)
    wanted = sorted(path for path in found if path.endswith(ENDINGS))
    if found == [source] and not wanted:
        raise SourceError(f"{source} has an unknown ending. Name it {_endings()}, after what is in it.")
    if not wanted:
        raise SourceError(f"No raw files are in {source}. Put files that end in {_endings()} there.")
    return wanted


def read(path: str) -> RawFile:
    """The file at `path`, unpacked if it ends in .gz.

    Raises SourceError if it is missing, empty or broken, SourceUnreachable if S3 does not answer.
    """
    if not path.endswith(ENDINGS):
        raise SourceError(f"{path} has an unknown ending. Name it {_endings()}, after what is in it.")
    stored = _read_on_s3(path) if path.startswith("s3://") else _read_on_disk(path)
    content = _unpacked(path, stored) if path.endswith(".gz") else stored
    if not content:
        raise SourceError(f"{path} is empty. Remove it, or deliver it again.")
    lines = content.split(b"\n")
    if not lines[-1]:
        lines.pop()
    return RawFile(path, hashlib.sha256(stored).hexdigest(), lines)


def _endings() -> str:
    return " or ".join(ENDINGS)


def _unpacked(path: str, stored: bytes) -> bytes:
    try:
        return gzip.decompress(stored)
    except EOFError as error:
        raise SourceError(f"{path} is cut off: its gzip stream has no end. Deliver it again.") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise SourceError(f"{path} is not a sound gzip file ({error}). Deliver it again.") from error


def _find_on_disk(source: str) -> list[str]:
    path = Path(source)
    try:
        if path.is_dir():
            return [str(p) for p in path.rglob("*") if p.is_file()]
        if path.is_file():
            return [source]
    except PermissionError as error:
        raise SourceError(f"{path} may not be read by this user. Grant access to it.") from error
    raise SourceError(f"{path} does not exist (seen from {Path.cwd()}). Check the path.")


def _read_on_disk(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise SourceError(f"{path} is not a file (seen from {Path.cwd()}). Check the path.") from error
    except PermissionError as error:
        raise SourceError(f"{path} may not be read by this user. Grant access to it.") from error


def _find_on_s3(source: str) -> list[str]:
    with _s3(source) as s3:
        return [f"s3://{key}" for key in s3.find(source)]


def _read_on_s3(path: str) -> bytes:
    with _s3(path) as s3:
        return s3.cat_file(path)


@contextmanager
def _s3(path: str) -> Iterator["S3FileSystem"]:
    """A fresh client that gives up within seconds, and whose errors name `path`."""
    from botocore.exceptions import BotoCoreError, NoCredentialsError, PartialCredentialsError
    from s3fs import S3FileSystem

    limits = {"connect_timeout": CONNECT_SECONDS, "read_timeout": READ_SECONDS, "retries": {"total_max_attempts": 1}}
    # s3fs caches clients and listings per process: a worker would not see new files or changed AWS variables.
    s3 = S3FileSystem(skip_instance_cache=True, use_listings_cache=False, config_kwargs=limits)
    s3.retries = 1
    try:
        yield s3
    except FileNotFoundError as error:
        raise SourceError(f"{path} does not exist ({error}). Check bucket and key.") from error
    except (PermissionError, NoCredentialsError, PartialCredentialsError) as error:
        raise SourceError(
            f"S3 refused {path} ({error}). Check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and the bucket's policy."
        ) from error
    except (BotoCoreError, OSError) as error:
        raise SourceUnreachable(
            f"S3 did not answer for {path} ({error}). Check AWS_ENDPOINT_URL and the network, then run again."
        ) from error
