"""Raw files: find them in a folder or on S3, and read them in pieces, however large they are.

S3's endpoint and credentials are the usual AWS variables, which botocore reads.
"""

import gzip
import hashlib
import io
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import msgspec
import numpy as np

from kreislauf.sources import storage
from kreislauf.sources.storage import SourceError
from models.table import RawLines

ENDINGS = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")
_ANY_ENDING = " or ".join(ENDINGS)
MAX_LINE_BYTES = 64 << 20
"""Maximum bytes of a line: a file without line feeds would fill the memory."""


class Listing(NamedTuple):
    """Paths of the files in a source, sorted; not those of hidden ones."""

    raw_files: list[str]
    left_alone: list[str]
    """Files with other endings, and links to folders."""
    stamps: dict[str, str]
    """Of each raw file, as `RawFile.stamp`."""


def find(source: str) -> Listing:
    """The files in `source`.

    `source` is a file, a folder (with all below it) or an s3:// prefix. What ends like a raw file
    is one. As everywhere, files and folders are hidden whose name begins with a full stop, or with
    an underscore, such as `_temporary`. Raises SourceError if there is no raw file or a folder may
    not be read, SourceUnreachable if S3 does not answer.
    """
    with storage.named_errors(source):
        versions = storage.list_files(source)
    visible = sorted(
        path for path in versions if path == source or not storage.is_hidden(path, source)
    )
    raw_files = [path for path in visible if path.endswith(ENDINGS)]
    if not raw_files and list(versions) == [source]:
        raise _unknown_ending(source)
    if not raw_files:
        raise SourceError(
            f"No raw files are in {source}. Put files that end in {_ANY_ENDING} there."
        )
    misnamed = [path for path in raw_files if path.encode(errors="replace").decode() != path]
    if misnamed:
        raise SourceError(f"{misnamed[0]!a} has a name that is not UTF-8. Rename it.")
    left_alone = [path for path in visible if not path.endswith(ENDINGS)]
    return Listing(
        raw_files, left_alone, {path: storage.stamp(path, versions[path]) for path in raw_files}
    )


def open_file(path: str, line: type[msgspec.Struct]) -> "RawFile":
    """The raw file at `path`; reads none of its content.

    `line` is the shape of its lines, by which the columns of a Parquet file are understood. Raises
    SourceError if the file is missing or has another ending than `ENDINGS`. Raises
    SourceUnreachable if the disk or S3 does not answer.
    """
    if not path.endswith(ENDINGS):
        raise _unknown_ending(path)
    return RawFile(path, line)


class RawFile:
    """One raw file as it is stored."""

    path: str
    stamp: str
    """Hex digest of path, size and time of change (disk) or ETag (S3).

    The same stamp means the same content, without reading it."""

    def __init__(self, path: str, line: type[msgspec.Struct]) -> None:
        self.path = path
        self._line = line
        self._sha256 = ""
        self._s3 = None
        if storage.on_s3(path):
            self._s3 = storage.s3_client()
        with storage.opened(path, self._s3) as file:
            self._version = storage.content_version(file)
        self.stamp = storage.stamp(path, self._version)

    @property
    def sha256(self) -> str:
        """Hex digest of the stored (compressed) bytes, once `chunks` is exhausted.

        Raises RuntimeError before.
        """
        if not self._sha256:
            raise RuntimeError(
                f"{self.path} has not been read to its end: its sha256 is not known yet."
            )
        return self._sha256

    def chunks(self) -> Iterator[RawLines]:
        """The lines in order, unpacked, about `storage.CHUNK_BYTES` at a time.

        A Parquet row is a line of JSON. Memory is bounded by a few chunks, or a few times the
        longest line. Raises SourceError if the file has no byte, is broken or not what its ending
        says; a packed file, or one of Parquet, may have no lines. It is raised as well if a line is
        above `MAX_LINE_BYTES` or the file changes meanwhile, possibly after chunks have been handed
        out. Raises SourceUnreachable if the disk or S3 stops answering.
        """
        self._sha256 = ""
        with storage.opened(self.path, self._s3) as file:
            stored = _Stored(self.path, file)
            self._check_unchanged(file)
            yield from self._read(stored)
            self._check_unchanged(file)
            if not stored.size:
                raise SourceError(f"{self.path} is empty. Remove it, or deliver it again.")
        self._sha256 = stored.sha.hexdigest()

    def _read(self, stored: "_Stored") -> Iterator[RawLines]:
        if self.path.endswith(".parquet"):
            return _rows(self.path, stored, self._line)
        return _lines(self.path, stored)

    def _check_unchanged(self, file: Any) -> None:
        if storage.content_version(file) != self._version:
            raise storage.changed_error(self.path)


class _Stored(io.RawIOBase):
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


def _unpacked(path: str, stored: _Stored) -> Any:
    """Stream of the unpacked bytes."""
    if path.endswith(".gz"):
        return gzip.GzipFile(fileobj=stored, mode="rb")
    if path.endswith(".zst"):
        import pyarrow

        # The package zstandard takes a stream that was cut off for a whole one.
        return pyarrow.CompressedInputStream(pyarrow.PythonFile(stored, "r"), "zstd")
    return stored


def _lines(path: str, stored: _Stored) -> Iterator[RawLines]:
    unpacked = _unpacked(path, stored)
    buffer = bytearray(storage.CHUNK_BYTES)
    view = memoryview(buffer)
    pieces: list[bytes] = []  # of the line that has not ended yet
    held = 0  # bytes of these pieces
    first = 1
    while size := _fill(path, unpacked, buffer):
        head = buffer.find(b"\n", 0, size)
        if head < 0:
            head = size
        if held + head > MAX_LINE_BYTES:
            raise _too_long(path, f"Line {first}")
        cut = buffer.rfind(b"\n", 0, size) + 1
        if cut:
            raw = RawLines.cut(path, b"".join([*pieces, view[:cut]]), first)
            first += len(raw)
            yield raw
            pieces = []
            held = 0
        if cut < size:
            pieces.append(bytes(view[cut:size]))
            held += size - cut
    if held:
        yield RawLines.cut(path, b"".join(pieces), first)
    stored.drain()


def _fill(path: str, unpacked: Any, buffer: bytearray) -> int:
    """Read into `buffer`; 0 at the end."""
    try:
        return unpacked.readinto(buffer)
    except SourceError:
        raise
    except (EOFError, OSError, zlib.error) as error:
        compression = "gzip" if path.endswith(".gz") else "zstd"
        if isinstance(error, EOFError) or "Truncated" in str(error):
            raise SourceError(
                f"{path} is cut off: its {compression} stream has no end. Deliver it again."
            ) from error
        raise SourceError(
            f"{path} is not a sound {compression} file ({error}). Deliver it again."
        ) from error


def _rows(path: str, stored: _Stored, line: type[msgspec.Struct]) -> Iterator[RawLines]:
    from kreislauf.sources import parquet

    with stored.read_whole() as file:
        try:
            for raw in parquet.lines(path, file, line, storage.CHUNK_BYTES):
                too_long = np.flatnonzero(raw.ends - raw.starts > MAX_LINE_BYTES)
                if len(too_long):
                    raise _too_long(path, f"Row {raw.numbers[too_long[0]]}")
                yield raw
        except parquet.ParquetError as error:
            raise SourceError(f"{path} {error}") from error


def _unknown_ending(path: str) -> SourceError:
    return SourceError(f"{path} has an unknown ending. Name it {_ANY_ENDING}, after what is in it.")


def _too_long(path: str, where: str) -> SourceError:
    limit = f"{MAX_LINE_BYTES >> 20} MiB"
    return SourceError(
        f"{where} of {path} is longer than {limit}. "
        "Nothing of the file is loaded: mend or remove it."
    )
