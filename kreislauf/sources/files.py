"""Raw files: find them in a folder or on S3, and read them in pieces, however large they are.

S3's endpoint and credentials are the usual AWS variables, which botocore reads.
"""

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from kreislauf.sources import endings, names, storage
from kreislauf.sources.storage import SourceError
from kreislauf.sources.stored import StoredBytes
from models import mapping as mappings
from models.mapping import Mapping
from models.records import RawPart, RawRecords
from models.table import RawLines, RawRows, Table

if TYPE_CHECKING:
    from kreislauf.sources.layout import Layout

MAX_LINE_BYTES = 64 << 20
"""Maximum bytes of a line: a file without line feeds would fill the memory."""


class Listing(NamedTuple):
    """Paths of the files in a source, sorted; not those of hidden ones."""

    raw_files: list[str]
    left_alone: list[str]
    """Files with other endings, and links to folders."""
    stamps: dict[str, str]
    """Of each raw file, as `RawFile.stamp`."""
    name: str
    """By which the source has a clock, see `names.name`."""


def find(source: str, mapping: Mapping | None = None) -> Listing:
    """The files in `source`.

    `source` is a file, a folder (with all below it) or an s3:// prefix. What ends like a raw file
    is one. As everywhere, files and folders are hidden whose name begins with a full stop, or with
    an underscore, such as `_temporary`. With another `mapping`, a file is a new one. Raises
    SourceError if there is no raw file or a folder may not be read, SourceUnreachable if S3 does
    not answer.
    """
    with storage.named_errors(source):
        versions = storage.list_files(source)
    visible = sorted(
        path for path in versions if path == source or not storage.is_hidden(path, source)
    )
    raw_files = [path for path in visible if endings.is_raw(path)]
    if not raw_files and list(versions) == [source]:
        raise _unknown_ending(source)
    if not raw_files:
        raise SourceError(
            f"No raw files are in {source}. Put files that end in {endings.ANY_ENDING} there."
        )
    misnamed = [path for path in raw_files if path.encode(errors="replace").decode() != path]
    if misnamed:
        raise SourceError(f"{misnamed[0]!a} has a name that is not UTF-8. Rename it.")
    left_alone = [path for path in visible if not endings.is_raw(path)]
    stamps = {path: _stamp(storage.stamp(path, versions[path]), mapping) for path in raw_files}
    name = names.name(source, is_file=list(versions) == [source])
    return Listing(raw_files, left_alone, stamps, name)


def _stamp(stamp: str, mapping: Mapping | None) -> str:
    """The stamp of a file that is read by a mapping."""
    if mapping is None:
        return stamp
    return hashlib.sha256(f"{stamp}/{mapping.digest}".encode()).hexdigest()


def open_file(path: str, table: Table, mapping: Mapping | None = None) -> "RawFile":
    """The raw file at `path`; reads none of its content.

    `mapping` says how its rows become those of `table`. By default JSON has the table's lines, CSV
    its columns, and Parquet either. Raises SourceError if the file is missing or has an ending that
    is none of `ENDINGS`. Raises SourceUnreachable if the disk or S3 does not answer.
    """
    if not endings.is_raw(path):
        raise _unknown_ending(path)
    return RawFile(path, table, mapping)


class RawFile:
    """One raw file as it is stored."""

    path: str
    stamp: str
    """Hex digest of path, size and time of change (disk) or ETag (S3).

    The same stamp means the same content, without reading it."""

    def __init__(self, path: str, table: Table, mapping: Mapping | None = None) -> None:
        self.path = path
        self.mapping = mapping
        self._table = table
        self._sha256 = ""
        self._s3 = None
        if storage.on_s3(path):
            self._s3 = storage.s3_client()
        with storage.opened(path, self._s3) as file:
            self._version = storage.content_version(file)
        self.stamp = _stamp(storage.stamp(path, self._version), mapping)

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

    def chunks(self) -> Iterator[RawPart]:
        """The lines in order, unpacked, about `storage.CHUNK_BYTES` at a time; of CSV records, and
        of flat Parquet rows by columns.

        Another Parquet row is a line of JSON. Memory is bounded by a few chunks, or a few times the
        longest line. Raises SourceError if the file has no byte, is broken or not what its ending
        says; a packed file, or one of Parquet, may have no lines. It is raised as well if a line is
        above `MAX_LINE_BYTES` or the file changes meanwhile, possibly after chunks have been handed
        out. Raises SourceUnreachable if the disk or S3 stops answering.
        """
        self._sha256 = ""
        with storage.opened(self.path, self._s3) as file:
            stored = StoredBytes(self.path, file)
            self._check_unchanged(file)
            yield from self._read(stored)
            self._check_unchanged(file)
            if not stored.size:
                raise SourceError(f"{self.path} is empty. Remove it, or deliver it again.")
        self._sha256 = stored.sha.hexdigest()

    def head(self) -> Iterator[RawLines | RawRows]:
        """The same as `chunks`, of which no more is read than is asked for; so there is no
        `sha256`."""
        with storage.opened(self.path, self._s3) as file:
            stored = StoredBytes(self.path, file)
            if endings.is_parquet(self.path):
                yield from _parquet(self.path, file, self._table, self.mapping)
            else:
                for part in self._read(stored):
                    yield part.as_rows() if isinstance(part, RawRecords) else part

    def layout(self) -> "Layout | None":
        """The columns of CSV or Parquet; None for JSON, of which each line names its own. Raises
        SourceError."""
        from kreislauf.sources import delimited, layout, parquet

        if not endings.is_parquet(self.path) and not endings.is_csv(self.path):
            return None
        with storage.opened(self.path, self._s3) as file:
            try:
                if endings.is_parquet(self.path):
                    return layout.of_parquet(self.path, parquet.opened(file))
                names = self.mapping.csv.names if self.mapping and self.mapping.csv else None
                return layout.of_csv(StoredBytes(self.path, file).unpacked(), names)
            except (parquet.ParquetError, delimited.DelimitedError) as error:
                raise SourceError(f"{self.path} {error}") from error

    def _read(self, stored: "StoredBytes") -> Iterator[RawPart]:
        if endings.is_parquet(self.path):
            return _whole_parquet(self.path, stored, self._table, self.mapping)
        if endings.is_csv(self.path):
            return _csv(self.path, stored, self.mapping or mappings.identity(self._table))
        return _lines(self.path, stored)

    def _check_unchanged(self, file: Any) -> None:
        if storage.content_version(file) != self._version:
            raise storage.changed_error(self.path)


def _lines(path: str, stored: StoredBytes) -> Iterator[RawLines]:
    unpacked = stored.unpacked()
    buffer = bytearray(storage.CHUNK_BYTES)
    view = memoryview(buffer)
    pieces: list[bytes] = []  # of the line that has not ended yet
    held = 0  # bytes of these pieces
    first = 1
    while size := unpacked.readinto(buffer):
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


def _csv(path: str, stored: StoredBytes, mapping: Mapping) -> Iterator[RawRows | RawRecords]:
    from kreislauf.sources import delimited

    try:
        yield from delimited.parts(path, stored.unpacked(), mapping, storage.CHUNK_BYTES)
    except delimited.DelimitedError as error:
        raise SourceError(f"{path} {error}") from error
    stored.drain()


def _whole_parquet(
    path: str, stored: StoredBytes, table: Table, mapping: Mapping | None
) -> Iterator[RawLines | RawRows]:
    with stored.read_whole() as file:
        yield from _parquet(path, file, table, mapping)


def _parquet(
    path: str, file: Any, table: Table, mapping: Mapping | None
) -> Iterator[RawLines | RawRows]:
    from kreislauf.sources import parquet

    try:
        opened = parquet.opened(file)
        rows = 0
        with parquet.named_errors():
            for raw in _rows(path, opened, table, mapping):
                rows += len(raw)
                yield raw
        parquet.check_complete(opened, rows)
    except parquet.ParquetError as error:
        raise SourceError(f"{path} {error}") from error


def _rows(
    path: str, opened: Any, table: Table, mapping: Mapping | None
) -> Iterator[RawLines | RawRows]:
    from kreislauf.sources import flat_parquet, parquet

    is_nested = table.items is None or table.items in opened.schema_arrow.names
    if mapping is not None or not is_nested:
        flat = mapping or mappings.identity(table)
        yield from flat_parquet.rows(path, opened, flat, storage.CHUNK_BYTES)
        return
    for raw in parquet.lines(path, opened, table.line, storage.CHUNK_BYTES):
        too_long = np.flatnonzero(raw.ends - raw.starts > MAX_LINE_BYTES)
        if len(too_long):
            raise _too_long(path, f"Row {raw.numbers[too_long[0]]}")
        yield raw


def _unknown_ending(path: str) -> SourceError:
    return SourceError(
        f"{path} has an unknown ending. Name it {endings.ANY_ENDING}, after what is in it."
    )


def _too_long(path: str, where: str) -> SourceError:
    limit = f"{MAX_LINE_BYTES >> 20} MiB"
    return SourceError(
        f"{where} of {path} is longer than {limit}. "
        "Nothing of the file is loaded: mend or remove it."
    )
