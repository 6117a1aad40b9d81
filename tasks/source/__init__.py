"""Raw files: find them in a folder or on S3, and read them in pieces, however large they are.

S3's endpoint and credentials are the usual AWS variables, which botocore reads.
"""

import errno
import gzip
import hashlib
import io
import os
import shutil
import stat
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from models.spec import Raw

if TYPE_CHECKING:
    from s3fs import S3FileSystem

ENDINGS = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")
_ANY_ENDING = " or ".join(ENDINGS)
CONNECT_SECONDS, READ_SECONDS = 3, 8
# For a block of an open file (s3fs squares it): a single lost connection should not cost hours of reading.
READ_ATTEMPTS = 2
# Unpacked bytes that are handed on together: small enough for the processor's caches, large enough for NumPy.
CHUNK_BYTES = 4 << 20
# Nobody's line: rather a file without line feeds, which would fill the memory.
MAX_LINE_BYTES = 64 << 20


class SourceError(ValueError):
    """Raw data cannot be found or read; the message says what, where, and what to do."""


class SourceUnreachable(SourceError, ConnectionError):
    """The place does not answer: the same call may succeed later."""


def find(source: str) -> list[str]:
    """Paths of the raw files in `source`, sorted: a file, a folder (with all below it) or an s3:// prefix.

    What ends like a raw file is one, hidden or not; what does not is left alone. Raises SourceError if there is none or
    a folder may not be read, SourceUnreachable if S3 does not answer.
    """
    with _errors(source):
        found = _files(source)
    wanted = sorted(path for path in found if path.endswith(ENDINGS))
    if not wanted and found == [source]:
        raise _unknown_ending(source)
    if not wanted:
        raise SourceError(f"No raw files are in {source}. Put files that end in {_ANY_ENDING} there.")
    misnamed = [path for path in wanted if path.encode(errors="replace").decode() != path]
    if misnamed:
        raise SourceError(f"{misnamed[0]!a} has a name that is not UTF-8. Rename it.")
    return wanted


def open_file(path: str, line: type[msgspec.Struct]) -> "RawFile":
    """The raw file at `path`; `line` is the shape of its lines, by which the columns of a Parquet file are understood.

    Reads none of its content. Raises SourceError if it is missing or has another ending than `ENDINGS`,
    SourceUnreachable if the disk or S3 does not answer.
    """
    if not path.endswith(ENDINGS):
        raise _unknown_ending(path)
    return RawFile(path, line)


class RawFile:
    """One raw file as it is stored."""

    path: str
    stamp: str
    """Hex digest of path, size and time of change (disk) or ETag (S3): the same stamp, the same content. Cheap."""

    def __init__(self, path: str, line: type[msgspec.Struct]) -> None:
        self.path, self._line, self._sha256 = path, line, ""
        self._s3 = _client() if _on_s3(path) else None
        with _opened(path, self._s3) as file:
            self._version = _version(file)
        place = path if self._s3 else os.path.abspath(path)
        stamp = "|".join(map(str, (place, *self._version)))
        self.stamp = hashlib.sha256(stamp.encode(errors="surrogateescape")).hexdigest()

    @property
    def sha256(self) -> str:
        """Hex digest of the stored (compressed) bytes, known once `chunks` is exhausted; RuntimeError before."""
        if not self._sha256:
            raise RuntimeError(f"{self.path} has not been read to its end: its sha256 is not known yet.")
        return self._sha256

    def chunks(self) -> Iterator[Raw]:
        """The lines in order, unpacked, about `CHUNK_BYTES` at a time; a Parquet row is a line of JSON.

        Memory is bounded by a few chunks, or a few times the longest line. Raises SourceError, possibly after chunks
        have been handed out, if the file is empty, broken, not what its ending says, has a line above
        `MAX_LINE_BYTES`, or changes meanwhile; SourceUnreachable if the disk or S3 stops answering.
        """
        self._sha256 = ""
        with _opened(self.path, self._s3) as file:
            stored = _Stored(self.path, file)
            self._check_unchanged(file)
            parquet = self.path.endswith(".parquet")
            lines = 0
            for raw in _rows(self.path, stored, self._line) if parquet else _lines(self.path, stored):
                lines += len(raw)
                yield raw
            self._check_unchanged(file)
            if not lines:
                raise SourceError(f"{self.path} is empty. Remove it, or deliver it again.")
        self._sha256 = stored.sha.hexdigest()

    def _check_unchanged(self, file: Any) -> None:
        if _version(file) != self._version:
            raise _changed(self.path)


class _Stored(io.RawIOBase):
    """Stored bytes as a stream that hashes what passes, and whose errors are SourceErrors."""

    def __init__(self, path: str, file: Any) -> None:
        self.sha, self._path, self._file = hashlib.sha256(), path, file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with _errors(self._path):
            size = self._file.readinto(buffer)
        self.sha.update(memoryview(buffer)[:size])
        return size

    def drain(self) -> None:
        """Hash what is left, which an unpacker may not have asked for."""
        buffer = bytearray(CHUNK_BYTES)
        while self.readinto(buffer):
            pass

    @contextmanager
    def read_whole(self) -> Iterator[Any]:
        """The file at its start, hashed and fit for reading here and there; of what is on S3, a temporary copy."""
        if not _on_s3(self._path):
            self.drain()
            self._file.seek(0)
            yield self._file
            return
        with tempfile.TemporaryFile() as copy:
            try:
                shutil.copyfileobj(self, copy, CHUNK_BYTES)
                copy.seek(0)
            except SourceError:
                raise
            except OSError as error:
                full = f"{self._path} does not fit in {tempfile.gettempdir()} ({error})"
                raise SourceError(f"{full}. Set TMPDIR to a larger folder.") from error
            yield copy


def _unpacked(path: str, stored: _Stored) -> Any:
    """Stream of the unpacked bytes."""
    if path.endswith(".gz"):
        return gzip.GzipFile(fileobj=stored, mode="rb")
    if path.endswith(".zst"):
        import pyarrow

        # The package zstandard takes a stream that was cut off for a whole one.
        return pyarrow.CompressedInputStream(pyarrow.PythonFile(stored, "r"), "zstd")
    return stored


def _lines(path: str, stored: _Stored) -> Iterator[Raw]:
    unpacked, buffer = _unpacked(path, stored), bytearray(CHUNK_BYTES)
    view = memoryview(buffer)
    pieces: list[bytes] = []  # of the line that has not ended yet
    held, first = 0, 1
    while size := _fill(path, unpacked, buffer):
        head = buffer.find(b"\n", 0, size)
        if held + (size if head < 0 else head) > MAX_LINE_BYTES:
            raise _too_long(path, f"Line {first}")
        cut = buffer.rfind(b"\n", 0, size) + 1
        if cut:
            raw = Raw.cut(path, b"".join([*pieces, view[:cut]]), first)
            first += len(raw)
            yield raw
            pieces, held = [], 0
        if cut < size:
            pieces.append(bytes(view[cut:size]))
            held += size - cut
    if held:
        yield Raw.cut(path, b"".join(pieces), first)
    stored.drain()


def _fill(path: str, unpacked: Any, buffer: bytearray) -> int:
    """Read into `buffer`; 0 at the end."""
    try:
        return unpacked.readinto(buffer)
    except SourceError:
        raise
    except (EOFError, OSError, zlib.error) as error:
        kind = "gzip" if path.endswith(".gz") else "zstd"
        if isinstance(error, EOFError) or "Truncated" in str(error):
            raise SourceError(f"{path} is cut off: its {kind} stream has no end. Deliver it again.") from error
        raise SourceError(f"{path} is not a sound {kind} file ({error}). Deliver it again.") from error


def _rows(path: str, stored: _Stored, line: type[msgspec.Struct]) -> Iterator[Raw]:
    from tasks.source import parquet

    with stored.read_whole() as file:
        try:
            for raw in parquet.lines(path, file, line, CHUNK_BYTES):
                too_long = np.flatnonzero(raw.ends - raw.starts > MAX_LINE_BYTES)
                if len(too_long):
                    raise _too_long(path, f"Row {raw.numbers[too_long[0]]}")
                yield raw
        except parquet.ParquetError as error:
            raise SourceError(f"{path} {error}") from error


def _on_s3(path: str) -> bool:
    return path.startswith("s3://")


def _files(source: str) -> list[str]:
    if _on_s3(source):
        return [f"s3://{key}" for key in _client().find(source)]
    if not stat.S_ISDIR(os.stat(source).st_mode):
        return [source]
    # Path leaves out a leading "./", and a folder that may not be read is not taken for an empty one.
    return [str(Path(top, name)) for top, _, names in os.walk(source, onerror=_refuse) for name in names]


def _refuse(error: OSError) -> None:
    raise error


@contextmanager
def _opened(path: str, s3: "S3FileSystem | None") -> Iterator[Any]:
    """A binary file, unbuffered or with a block read ahead."""
    with _errors(path):
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


def _version(file: Any) -> tuple[int, int | str]:
    """Size, and what changes with the content."""
    if isinstance(file, io.FileIO):
        status = os.fstat(file.fileno())
        return status.st_size, status.st_mtime_ns
    return file.details["size"], file.details["ETag"]


def _client() -> "S3FileSystem":
    """A fresh client that gives up within seconds."""
    from s3fs import S3FileSystem

    limits = {"connect_timeout": CONNECT_SECONDS, "read_timeout": READ_SECONDS, "retries": {"total_max_attempts": 1}}
    # s3fs caches clients and listings per process: a worker would not see new files or changed AWS variables.
    # Not every server understands If-Match: the client compares the ETag of every block itself.
    s3 = S3FileSystem(skip_instance_cache=True, use_listings_cache=False, local_expiry_check=True, config_kwargs=limits)
    s3.retries = 1
    return s3


def _errors(path: str) -> AbstractContextManager[None]:
    """Errors of disk or S3 become SourceErrors that name `path`."""
    return _s3_errors(path) if _on_s3(path) else _disk_errors(path)


@contextmanager
def _disk_errors(path: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise SourceError(f"{path} does not exist (seen from {Path.cwd()}). Check the path.") from error
    except (NotADirectoryError, IsADirectoryError) as error:
        raise SourceError(f"{path} is not a file (seen from {Path.cwd()}). Check the path.") from error
    except PermissionError as error:
        raise SourceError(f"{error.filename or path} may not be read by this user. Grant access to it.") from error
    except OSError as error:
        raise SourceUnreachable(f"{path} could not be read ({error}). Check the disk, then run again.") from error


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
            f"S3 refused {path} ({error}). Check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and the bucket's policy."
        ) from error
    except (BotoCoreError, ClientError, OSError, RuntimeError, ValueError) as error:
        # EINVAL: the object has become so short that the next block would begin behind its end.
        if isinstance(error, FileExpired) or getattr(error, "errno", None) == errno.EINVAL:
            raise _changed(path) from error
        raise SourceUnreachable(
            f"S3 did not answer for {path} ({error}). Check AWS_ENDPOINT_URL and the network, then run again."
        ) from error


def _unknown_ending(path: str) -> SourceError:
    return SourceError(f"{path} has an unknown ending. Name it {_ANY_ENDING}, after what is in it.")


def _changed(path: str) -> SourceError:
    return SourceError(f"{path} changed while it was read. Run again once it is complete.")


def _too_long(path: str, where: str) -> SourceError:
    limit = f"{MAX_LINE_BYTES >> 20} MiB"
    return SourceError(f"{where} of {path} is longer than {limit}. Nothing of the file is loaded: mend or remove it.")
