"""Exposures and feedback on their way to the lake: segments of JSON lines in a folder.

The flow `collect` loads them. A line is handed to the operating system before its answer leaves, so
a killed gateway loses none, and nothing is held in memory. (A machine that loses power loses what
its disk has not got yet.) A segment is `.open` while it is written, and `.jsonl` when it is whole.
The next gateway closes the segments that a killed gateway left open.
"""

import errno
import fcntl
import os
import time
import uuid
from contextlib import suppress
from pathlib import Path

import msgspec

from kreislauf import exposures, full_disk

SEGMENT_BYTES = 16_000_000
"""Size at which a segment is closed."""
SEGMENT_SECONDS = 60.0
"""Age at which a segment is closed, so that the lake is not behind by more."""


class Spool:
    """Appends lines to the newest segment of a folder. Not safe for several threads."""

    def __init__(self, folder: Path, seconds: float = SEGMENT_SECONDS):
        self.folder = folder
        self.seconds = seconds
        folder.mkdir(parents=True, exist_ok=True)
        self._file = -1
        self._path = folder
        self._bytes = 0
        self._opened = 0.0
        self._encoder = msgspec.json.Encoder()
        adopt(folder)

    def write(self, line: msgspec.Struct) -> None:
        """Append one line, or nothing of it: raises OSError when the disk does not take it, and
        DiskFull if it is full."""
        data = self._encoder.encode(line) + b"\n"
        with full_disk.named({self.folder: "KREISLAUF_SPOOL"}):
            self._append(data)
        self._bytes += len(data)
        if self._bytes >= SEGMENT_BYTES:
            self.close()

    def _append(self, data: bytes) -> None:
        if self._file < 0:
            self._open()
        written = os.write(self._file, data)
        if written < len(data):
            os.ftruncate(self._file, self._bytes)
            raise OSError(errno.ENOSPC, f"only {written} of {len(data)} bytes were written")

    def tick(self) -> None:
        """Close the segment if it is old enough, or if `collect` wants it; the gateway calls it
        every second."""
        if self._file < 0:
            return
        is_old = time.monotonic() - self._opened >= self.seconds
        if is_old or (self.folder / exposures.COLLECTING).exists():
            self.close()

    def close(self) -> None:
        """Make the newest segment ready to be loaded; the next line opens another."""
        if self._file >= 0:
            try:
                self._path.rename(self._path.with_suffix(".jsonl"))
            finally:
                os.close(self._file)
                self._file = -1

    def _open(self) -> None:
        self._path = self.folder / f"{time.time_ns()}-{uuid.uuid4().hex[:8]}.open"
        file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o640)
        # Held until the file is closed, or its process is gone.
        fcntl.flock(file, fcntl.LOCK_EX)
        if not self._path.exists():
            # Another gateway was starting, and adopted it before it was locked.
            os.close(file)
            return self._open()
        self._file = file
        self._bytes = 0
        self._opened = time.monotonic()


def adopt(folder: Path) -> None:
    """Close the segments whose gateway is gone.

    Half a last line stays in its segment, and is quarantined when it is loaded.
    """
    for path in folder.glob("*.open"):
        # A file that is not there any more was closed meanwhile by the gateway that wrote it.
        with suppress(FileNotFoundError), path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            path.rename(path.with_suffix(".jsonl"))
