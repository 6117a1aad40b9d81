"""Files on disk and on S3: listed, opened, and their errors as sentences."""

import errno
import hashlib
import io
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from s3fs import S3FileSystem

CONNECT_SECONDS = 3
"""Seconds in which S3 must accept a connection."""
READ_SECONDS = 8
"""Seconds in which S3 must answer a read."""
READ_ATTEMPTS = 2
"""Attempts for a block of an open file; s3fs squares it.

A single lost connection should not cost hours of reading."""
CHUNK_BYTES = 4 << 20
"""Unpacked bytes that are handed on together.

They are few enough for the processor's caches, and many enough for NumPy."""

Version = tuple[int, int | str]
"""Size of a file, and what changes with its content."""


class SourceError(ValueError):
    """Raw data cannot be found or read; the message says what, where, and what to do."""


class SourceUnreachable(SourceError, ConnectionError):
    """The place does not answer: the same call may succeed later."""


def on_s3(path: str) -> bool:
    """Whether `path` is an address on S3."""
    return path.startswith("s3://")


def list_files(source: str) -> dict[str, Version]:
    """Paths and versions of all files in a file, a folder or an s3:// prefix, and of links to
    folders."""
    if on_s3(source):
        files = s3_client().find(source, detail=True)
        return {f"s3://{key}": version_on_s3(details) for key, details in files.items()}
    if not stat.S_ISDIR(os.stat(source).st_mode):
        return {source: _version_on_disk(source)}
    # Path leaves out a leading "./". A folder that may not be read is not taken for an empty one.
    folders = os.walk(source, onerror=_refuse)
    paths = []
    for folder, below, names in folders:
        links = [name for name in below if os.path.islink(os.path.join(folder, name))]
        paths += [str(Path(folder, name)) for name in [*names, *links]]
    return {path: _version_on_disk(path) for path in paths}


def _version_on_disk(path: str) -> Version:
    """The version of a file; of one that cannot be looked at, opening it says what is wrong."""
    try:
        status = os.stat(path)
    except OSError:
        return 0, "unknown"
    return status.st_size, status.st_mtime_ns


def version_on_s3(details: Mapping[str, Any]) -> Version:
    """The version of an object, of what S3 says of it."""
    return details["size"], details["ETag"]


def _refuse(error: OSError) -> None:
    raise error


def stamp(path: str, version: Version) -> str:
    """Hex digest of the place and the version of a file."""
    place = path
    if not on_s3(path):
        place = os.path.abspath(path)
    text = "|".join(map(str, (place, *version)))
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


def is_hidden(path: str, source: str) -> bool:
    """Whether a file, or a folder of it below `source`, is hidden. A folder that names a column,
    such as `_day=3`, is not."""
    below = path.removeprefix(source)
    if not on_s3(source):
        below = os.path.relpath(path, source)
    names = below.split("/")
    return any(name.startswith((".", "_")) and "=" not in name for name in names)


@contextmanager
def opened(path: str, s3: "S3FileSystem | None") -> Iterator[Any]:
    """A binary file, unbuffered or with a block read ahead."""
    with named_errors(path):
        file: Any
        if s3:
            s3.retries = 1
            file = s3.open(path, "rb", block_size=CHUNK_BYTES, cache_type="readahead")
            s3.retries = READ_ATTEMPTS
            if file.details["type"] != "file":
                raise FileNotFoundError("there are only objects below it")
        elif stat.S_ISREG(os.stat(path).st_mode):
            file = open(path, "rb", buffering=0)  # noqa: SIM115
        else:
            raise IsADirectoryError
    with file:
        yield file


def content_version(file: Any) -> Version:
    """The version of an open file."""
    if isinstance(file, io.FileIO):
        status = os.fstat(file.fileno())
        return status.st_size, status.st_mtime_ns
    return version_on_s3(file.details)


def s3_client() -> "S3FileSystem":
    """A fresh client that gives up within seconds."""
    from s3fs import S3FileSystem

    limits = {
        "connect_timeout": CONNECT_SECONDS,
        "read_timeout": READ_SECONDS,
        "retries": {"total_max_attempts": 1},
    }
    # s3fs caches clients and listings per process: a worker would not see new files or changed AWS
    # variables. Not every server understands If-Match, so the client compares the ETag of every
    # block itself.
    s3 = S3FileSystem(
        skip_instance_cache=True,
        use_listings_cache=False,
        local_expiry_check=True,
        config_kwargs=limits,
    )
    s3.retries = 1
    return s3


def named_errors(path: str) -> AbstractContextManager[None]:
    """Errors of disk or S3 become SourceErrors that name `path`."""
    if on_s3(path):
        return _s3_errors(path)
    return _disk_errors(path)


@contextmanager
def _disk_errors(path: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise SourceError(
            f"{path} does not exist (seen from {Path.cwd()}). Check the path."
        ) from error
    except (NotADirectoryError, IsADirectoryError) as error:
        raise SourceError(
            f"{path} is not a file (seen from {Path.cwd()}). Check the path."
        ) from error
    except PermissionError as error:
        raise SourceError(
            f"{error.filename or path} may not be read by this user. Grant access to it."
        ) from error
    except OSError as error:
        raise SourceUnreachable(
            f"{path} could not be read ({error}). Check the disk, then run again."
        ) from error


@contextmanager
def _s3_errors(path: str) -> Iterator[None]:
    from aiohttp import ClientError
    from botocore.exceptions import BotoCoreError, NoCredentialsError, PartialCredentialsError
    from s3fs.utils import FileExpired

    try:
        yield
    except FileNotFoundError as error:
        raise SourceError(f"{path} does not exist ({error}). Check bucket and key.") from error
    except (PermissionError, NoCredentialsError, PartialCredentialsError) as error:
        raise SourceError(
            f"S3 refused {path} ({error}). "
            "Check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and the bucket's policy."
        ) from error
    except (BotoCoreError, ClientError, OSError, RuntimeError, ValueError) as error:
        # EINVAL: the object has become so short that the next block would begin behind its end.
        if isinstance(error, FileExpired) or getattr(error, "errno", None) == errno.EINVAL:
            raise changed_error(path) from error
        raise SourceUnreachable(
            f"S3 did not answer for {path} ({error}). "
            "Check AWS_ENDPOINT_URL and the network, then run again."
        ) from error


def changed_error(path: str) -> SourceError:
    """The error of a reader below whom the file has changed."""
    return SourceError(f"{path} changed while it was read. Run again once it is complete.")
