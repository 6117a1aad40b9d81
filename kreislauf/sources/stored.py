"""The bytes of one raw file: hashed as they pass, and unpacked."""

import gzip
import hashlib
import io
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from kreislauf.sources import storage
from kreislauf.sources.storage import SourceError


class StoredBytes(io.RawIOBase):
    """Stored bytes as a stream that hashes what passes, and whose errors are SourceErrors."""

    def __init__(self, path: str, file: Any) -> None:
        self.sha = hashlib.sha256()
        self.size = 0
        """Number of bytes that have passed."""
        self._path = path
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with storage.named_errors(self._path):
            size = self._file.readinto(buffer)
        self.sha.update(memoryview(buffer)[:size])
        self.size += size
        return size

    def drain(self) -> None:
        """Hash what is left, which an unpacker may not have asked for."""
        buffer = bytearray(storage.CHUNK_BYTES)
        while self.readinto(buffer):
            pass

    def unpacked(self) -> "Unpacked":
        """The bytes as they were before gzip or zstd, if the file's name says so."""
        return Unpacked(self._path, _unpacked(self._path, self))

    @contextmanager
    def read_whole(self) -> Iterator[Any]:
        """The file at its start, hashed and fit for random access; a temporary copy if on S3."""
        if not storage.on_s3(self._path):
            self.drain()
            self._file.seek(0)
            yield self._file
            return
        with tempfile.TemporaryFile() as copy:
            try:
                shutil.copyfileobj(self, copy, storage.CHUNK_BYTES)
                copy.seek(0)
            except SourceError:
                raise
            except OSError as error:
                full = f"{self._path} does not fit in {tempfile.gettempdir()} ({error})"
                raise SourceError(f"{full}. Set TMPDIR to a larger folder.") from error
            yield copy


def _unpacked(path: str, stored: StoredBytes) -> Any:
    """Stream of the unpacked bytes."""
    if path.lower().endswith(".gz"):
        return gzip.GzipFile(fileobj=stored, mode="rb")
    if path.lower().endswith(".zst"):
        import pyarrow

        # The package zstandard takes a stream that was cut off for a whole one.
        return pyarrow.CompressedInputStream(pyarrow.PythonFile(stored, "r"), "zstd")
    return stored


class Unpacked(NamedTuple):
    """A stream of unpacked bytes, whose errors are SourceErrors."""

    path: str
    stream: Any

    def readinto(self, buffer: Any) -> int:
        """Read into `buffer`; 0 at the end."""
        try:
            return self.stream.readinto(buffer)
        except SourceError:
            raise
        except (EOFError, OSError, zlib.error) as error:
            compression = "gzip" if self.path.lower().endswith(".gz") else "zstd"
            if isinstance(error, EOFError) or "Truncated" in str(error):
                raise SourceError(
                    f"{self.path} is cut off: its {compression} stream has no end. "
                    "Deliver it again."
                ) from error
            raise SourceError(
                f"{self.path} is not a sound {compression} file ({error}). Deliver it again."
            ) from error
