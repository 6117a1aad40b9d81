import errno
import gzip
import hashlib
import io
import os
import random
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from kreislauf.sources import SourceError, SourceUnreachable, files, find, storage
from models.session_recommender.schema import EVENTS
from tests.conftest import ROOT

LINES = b'{"session":1,"events":[{"aid":3,"ts":5,"type":"clicks"}]}\n{"session":2,"events":[]}\n'


def zstd(content: bytes) -> bytes:
    """One frame with a checksum, as the command `zstd` writes it."""
    import zstandard

    return zstandard.ZstdCompressor(write_checksum=True).compress(content)


def parquet(content: bytes) -> bytes:
    """The same lines as rows."""
    file = io.BytesIO()
    pl.read_ndjson(io.BytesIO(content), schema=SCHEMA).write_parquet(file)
    return file.getvalue()


SCHEMA = {
    "session": pl.Int64,
    "events": pl.List(pl.Struct({"aid": pl.Int64, "ts": pl.Int64, "type": pl.String})),
}
PACKERS = {".jsonl": bytes, ".jsonl.gz": gzip.compress, ".jsonl.zst": zstd, ".parquet": parquet}


def open_file(path: Path | str) -> files.RawFile:
    return files.open_file(str(path), EVENTS)


def read(path: Path | str) -> list[bytes]:
    """All lines of a file; their numbers must be 1, 2, 3 ... and their source the path."""
    raws = list(open_file(path).chunks())
    assert {raw.source for raw in raws} <= {str(path)}
    assert [n for raw in raws for n in raw.numbers.tolist()] == list(
        range(1, sum(map(len, raws)) + 1)
    )
    return [raw.line(i) for raw in raws for i in range(len(raw))]


def write(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


# What is found


def test_folder_is_searched_to_the_bottom_and_sorted(tmp_path, monkeypatch):
    raw = [
        "_day=3/b.jsonl",
        "a.jsonl.gz",
        "b/A.JSONL",
        "b/c.parquet/part-0.parquet",
        "b/data.json",
        "b/data.ndjson",
        "b/export.CSV.gz",
        "b/z.jsonl",
        "b/z.jsonl.zst",
    ]
    left_alone = ["b/a.jsonl.bz2", "b/link", "b/notes.txt", "b/z.jsonl.part"]
    hidden = [
        ".a.jsonl.crc",
        ".git/a.jsonl",
        "_temporary/0/part-0.parquet",
        "b/._z.jsonl",
        "b/.hidden.jsonl",
        "b/c.parquet/_SUCCESS",
    ]
    for name in (*raw, *left_alone, *hidden):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        if not name.endswith("link"):
            (tmp_path / name).write_bytes(LINES)
    (tmp_path / "b" / "link").symlink_to(tmp_path / "_temporary")
    listing = find(str(tmp_path))
    assert listing.raw_files == [str(tmp_path / name) for name in raw]
    assert listing.left_alone == [str(tmp_path / name) for name in left_alone]
    monkeypatch.chdir(tmp_path)
    assert find(".").raw_files == raw
    hidden_folder = tmp_path / ".git"
    assert find(str(hidden_folder)).raw_files == [str(hidden_folder / "a.jsonl")]


def test_single_file_keeps_the_path_that_was_given(tmp_path, monkeypatch):
    (tmp_path / "a.jsonl").write_bytes(LINES)
    monkeypatch.chdir(tmp_path)
    assert find("./a.jsonl").raw_files == ["./a.jsonl"]
    assert find(".").raw_files == ["a.jsonl"]


def test_thousands_of_files_are_found_in_no_time(tmp_path):
    for i in range(20_000):
        (tmp_path / f"{i:05}.jsonl").touch()
    start = time.process_time()
    assert len(find(str(tmp_path)).raw_files) == 20_000
    assert time.process_time() - start < 2


def test_what_cannot_be_found_says_so(tmp_path):
    (tmp_path / "empty").mkdir()
    write(tmp_path, "a.tsv", LINES)
    with pytest.raises(SourceError, match=r"nowhere does not exist .* Check the path"):
        find(str(tmp_path / "nowhere"))
    with pytest.raises(
        SourceError,
        match=r"No raw files are in .*empty\. Put files that end in \.jsonl, .* there",
    ):
        find(str(tmp_path / "empty"))
    for function in (find, open_file):
        with pytest.raises(
            SourceError, match=r"a\.tsv has an unknown ending\. Name it \.jsonl, .*\.parquet"
        ):
            function(str(tmp_path / "a.tsv"))


def test_a_folder_that_may_not_be_read_is_not_taken_for_an_empty_one(tmp_path, monkeypatch):
    (tmp_path / "open").mkdir()
    (tmp_path / "shut").mkdir()
    write(tmp_path / "open", "a.jsonl", LINES)
    scandir = os.scandir

    def refuse(path):  # the tests may run as root, whom no mode keeps out
        if str(path).endswith("shut"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(SourceError, match=r"shut may not be read by this user"):
        find(str(tmp_path))


def test_a_name_that_is_not_utf8_is_asked_to_be_mended(tmp_path):
    path = os.fsencode(tmp_path) + b"/M\xe4rz.jsonl"
    Path(os.fsdecode(path)).write_bytes(LINES)
    with pytest.raises(
        SourceError, match=r"M\\udce4rz\.jsonl' has a name that is not UTF-8"
    ) as caught:
        find(str(tmp_path))
    assert str(caught.value).isascii()
    assert read(os.fsdecode(path)) == LINES.split(b"\n")[:2]


# What is opened


def test_what_is_not_a_file_says_so(tmp_path):
    (tmp_path / "folder.jsonl").mkdir()
    os.mkfifo(tmp_path / "pipe.jsonl")
    write(tmp_path, "a.jsonl", LINES)
    (tmp_path / "dangling.jsonl").symlink_to(tmp_path / "gone")
    for name in ("folder.jsonl", "pipe.jsonl", "a.jsonl/b.jsonl"):
        with pytest.raises(SourceError, match=f"{name} is not a file"):
            open_file(tmp_path / name)
    for name in ("gone.jsonl", "dangling.jsonl"):
        with pytest.raises(SourceError, match=f"{name} does not exist .* Check the path"):
            open_file(tmp_path / name)


def test_stamp_is_known_before_reading_and_is_that_of_the_content(tmp_path, monkeypatch):
    path = write(tmp_path, "a.jsonl", LINES)
    stamp = open_file(path).stamp
    assert len(stamp) == 64
    assert open_file(path).stamp == stamp
    monkeypatch.chdir(tmp_path)
    assert open_file("a.jsonl").stamp == stamp
    twin = write(tmp_path, "b.jsonl", LINES)
    os.utime(path, ns=(1, 1))
    os.utime(twin, ns=(1, 1))
    aged = open_file(path).stamp
    path.write_bytes(LINES + LINES)
    os.utime(path, ns=(1, 1))
    assert len({stamp, aged, open_file(path).stamp, open_file(twin).stamp}) == 4


@pytest.mark.parametrize("ending", [*PACKERS])
def test_lines_and_hash_are_the_same_on_disk_and_on_s3(tmp_path, s3, ending):
    path = write(tmp_path, f"a{ending}", PACKERS[ending](LINES))
    s3.put(str(path), f"shop/a{ending}")
    for place in (str(path), f"s3://shop/a{ending}"):
        file = open_file(place)
        with pytest.raises(RuntimeError, match="has not been read to its end"):
            _ = file.sha256
        for _ in range(2):  # a second reading is like the first
            lines = [raw.line(i) for raw in file.chunks() for i in range(len(raw))]
            assert lines == LINES.split(b"\n")[:2]
            assert file.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        next(file.chunks())
        with pytest.raises(RuntimeError):
            _ = file.sha256


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"a\nb", [b"a", b"b"]),
        (b"a\r\nb\r\n", [b"a\r", b"b\r"]),
        (b"a\n\n\nb\n", [b"a", b"", b"", b"b"]),
        (b"\n", [b""]),
        (b"\xef\xbb\xbfa\x0b\x85\xff\n", [b"\xef\xbb\xbfa\x0b\x85\xff"]),
    ],
)
@pytest.mark.parametrize("ending", [*PACKERS][:3])
def test_lines_are_cut_at_line_feeds_only_and_unchanged(tmp_path, ending, content, lines):
    assert read(write(tmp_path, f"a{ending}", PACKERS[ending](content))) == lines


@pytest.mark.parametrize("ending", [*PACKERS][:3])
@given(
    content=st.lists(st.sampled_from([b"\n", b"a", b"\n\n", b"bcdefgh", b"\0\xff\r"])).map(
        b"".join
    ),
    size=st.integers(1, 40),
)
@hypothesis_settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_where_chunks_end_makes_no_difference(tmp_path, monkeypatch, ending, content, size):
    monkeypatch.setattr(storage, "CHUNK_BYTES", size)
    path = write(tmp_path, f"a{ending}", PACKERS[ending](content + b"x"))
    assert read(path) == (content + b"x").split(b"\n")
    path.write_bytes(PACKERS[ending](content + b"\n"))
    assert read(path) == (content + b"\n").split(b"\n")[:-1]
    longest = max(map(len, (content + b"\n").split(b"\n")))
    for raw in open_file(path).chunks():
        assert len(raw.data) <= size + longest + 1


@pytest.mark.parametrize("ending", [*PACKERS][:3])
def test_a_line_may_span_many_chunks_but_not_be_endless(tmp_path, monkeypatch, ending):
    monkeypatch.setattr(storage, "CHUNK_BYTES", 10)
    monkeypatch.setattr(files, "MAX_LINE_BYTES", 1000)
    path = write(
        tmp_path, f"a{ending}", PACKERS[ending](b"a\n" + b"b" * 1000 + b"\n" + b"c" * 1000)
    )
    assert list(map(len, read(path))) == [1, 1000, 1000]
    for tail in (b"", b"\n", b"\nd\n", b"e" * 5000):
        path.write_bytes(PACKERS[ending](b"a\n\n" + b"b" * 1001 + tail))
        with pytest.raises(
            SourceError,
            match=r"Line 3 of .*a\.jsonl.* is longer than .* Nothing of the file is loaded",
        ):
            read(path)


def test_a_long_line_takes_no_quadratic_time(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "CHUNK_BYTES", 1000)
    path = write(tmp_path, "a.jsonl", b"a" * 60_000_000)
    start = time.process_time()
    assert list(map(len, read(path))) == [60_000_000]
    assert time.process_time() - start < 3  # 60_000 pieces; joined each time it would be minutes


MEMORY = """
import sys, psutil
from models.session_recommender.schema import EVENTS
from kreislauf.sources import files, storage
used = lambda: psutil.Process().memory_info().rss >> 20
lines, most, start = 0, 0, None
for path in sys.argv[1:]:
    start = start and used()
    for raw in files.open_file(path, EVENTS).chunks():
        lines, most = lines + len(raw), max(most, used())
    start = start or used()
print(lines, most - start)
"""


@pytest.mark.parametrize("ending", [*PACKERS])
def test_memory_does_not_grow_with_the_file(tmp_path, ending):
    events = [
        {"aid": random.randrange(10**6), "ts": 1_659_304_800_000 + i, "type": "clicks"}
        for i in range(40)
    ]
    rows = pl.DataFrame({"session": range(2000), "events": [events] * 2000}, schema=SCHEMA)
    content = rows.write_ndjson().encode()
    write(tmp_path, f"warm{ending}", PACKERS[ending](content))
    if (
        ending == ".parquet"
    ):  # a single group of rows, which a reader may be tempted to take in at once
        rows = pl.concat([rows] * 50).with_columns(session=pl.row_index())
        pq.write_table(
            rows.to_arrow(),
            tmp_path / f"big{ending}",
            row_group_size=10**6,
            compression="none",
            use_dictionary=False,
        )
    else:
        pack = (lambda c: gzip.compress(c, 1)) if ending.endswith("gz") else PACKERS[ending]
        write(tmp_path, f"big{ending}", pack(content) * 50)
    command = [sys.executable, "-c", MEMORY, tmp_path / f"warm{ending}", tmp_path / f"big{ending}"]
    answer = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert len(content) * 50 > 190_000_000
    assert int(answer[0]) == 2000 * 51
    assert int(answer[1]) < 60


# What is wrong with a file

PACKED = gzip.compress(random.Random(1).randbytes(3000), mtime=0)
FRAME = zstd(random.Random(1).randbytes(3000))
SKIPPED = struct.pack("<II", 0x184D2A53, 7) + b"comment"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b"", "is empty"),
        ("a.jsonl.gz", b"", "is empty"),
        ("a.jsonl.gz", PACKED[:-20], "is cut off"),
        ("a.jsonl.gz", PACKED[:-1], "is cut off"),
        ("a.jsonl.gz", PACKED[:5], "is cut off"),
        ("a.jsonl.gz", PACKED + PACKED[:5], "is cut off"),
        ("a.jsonl.gz", PACKED[:1500] + b"\0\0\0" + PACKED[1503:], "is not a sound gzip file"),
        ("a.jsonl.gz", PACKED[:-8] + b"\0\0\0\0" + PACKED[-4:], "is not a sound gzip file"),
        ("a.jsonl.gz", LINES, "is not a sound gzip file"),
        ("a.jsonl.gz", FRAME, "is not a sound gzip file"),
        ("a.jsonl.gz", PACKED + b"junk", "is not a sound gzip file"),
        ("a.jsonl.zst", b"", "is empty"),
        ("a.jsonl.zst", FRAME[:-20], "is cut off"),
        ("a.jsonl.zst", FRAME[:-1], "is cut off"),
        ("a.jsonl.zst", FRAME[:3], "is cut off"),
        ("a.jsonl.zst", FRAME + FRAME[:-5], "is cut off"),
        ("a.jsonl.zst", FRAME + FRAME[:3], "is cut off"),
        ("a.jsonl.zst", FRAME + SKIPPED[:-2], "is cut off"),
        ("a.jsonl.zst", FRAME[:1500] + b"\0\0\0" + FRAME[1503:], "is not a sound zstd file"),
        ("a.jsonl.zst", LINES, "is not a sound zstd file"),
        ("a.jsonl.zst", PACKED, "is not a sound zstd file"),
        ("a.jsonl.zst", FRAME + b"junkjunk", "is not a sound zstd file"),
        ("a.parquet", b"", "is not a sound Parquet file"),
        ("a.parquet", LINES, "is not a sound Parquet file"),
        ("a.parquet", parquet(LINES)[:-9], "is not a sound Parquet file"),
    ],
)
def test_broken_files_say_where_and_what(tmp_path, name, content, message):
    path = write(tmp_path, name, content)
    with pytest.raises(SourceError, match=f"{path} {message}") as caught:
        read(path)
    assert not isinstance(caught.value, SourceUnreachable)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl.gz", gzip.compress(b"", mtime=0)),
        ("a.jsonl.zst", zstd(b"")),
        ("a.jsonl.zst", SKIPPED),
        ("a.parquet", parquet(b"")),
    ],
)
def test_a_part_without_lines_is_a_sound_file(tmp_path, name, content):
    assert read(write(tmp_path, name, content)) == []


@pytest.mark.parametrize(
    ("name", "content", "lines"),
    [
        (
            "a.jsonl.gz",
            gzip.compress(b"a\nb", mtime=0) + gzip.compress(b"c\n", mtime=0),
            [b"a", b"bc"],
        ),
        (
            "a.jsonl.gz",
            gzip.compress(b"a\n", mtime=0)
            + gzip.compress(b"", mtime=0)
            + gzip.compress(b"b\n", mtime=0),
            [b"a", b"b"],
        ),
        (
            "a.jsonl.gz",
            gzip.compress(b"a\n", mtime=0) + b"\0" * 9000,
            [b"a"],
        ),  # padded to full blocks, as on a tape
        ("a.jsonl.zst", zstd(b"a\nb") + zstd(b"c\n"), [b"a", b"bc"]),
        ("a.jsonl.zst", SKIPPED + zstd(b"a\n") + SKIPPED + zstd(b"b\n") + SKIPPED, [b"a", b"b"]),
    ],
)
def test_packed_files_of_several_parts_are_read_and_hashed_whole(tmp_path, name, content, lines):
    path = write(tmp_path, name, content)
    assert read(path) == lines
    file = open_file(path)
    list(file.chunks())
    assert file.sha256 == hashlib.sha256(content).hexdigest()


def test_a_bomb_is_unpacked_a_piece_at_a_time(tmp_path):
    line = b"a" * 999_999 + b"\n"
    for ending in (".jsonl.gz", ".jsonl.zst"):
        path = write(tmp_path, f"a{ending}", PACKERS[ending](line * 40))
        assert path.stat().st_size < 100_000
        assert max(len(raw.data) for raw in open_file(path).chunks()) < storage.CHUNK_BYTES + len(
            line
        )


@pytest.mark.parametrize("ending", [*PACKERS])
@pytest.mark.parametrize("change", ["append", "overwrite", "truncate"])
def test_a_file_that_changes_while_it_is_read_is_noticed(tmp_path, monkeypatch, ending, change):
    monkeypatch.setattr(storage, "CHUNK_BYTES", 20)
    content = PACKERS[ending](LINES * 3)
    path = write(tmp_path, f"a{ending}", content)

    def alter():
        with path.open("r+b") as file:
            if change == "truncate":
                file.truncate(len(content) // 2)
            else:
                file.seek(0, os.SEEK_END if change == "append" else os.SEEK_SET)
                file.write(LINES if change == "append" else content)
        os.utime(path, ns=(1, 1))

    file = open_file(path)
    chunks = file.chunks()
    next(chunks)
    alter()
    with pytest.raises(SourceError, match=r"changed while it was read|is cut off|not a sound"):
        list(chunks)
    path.write_bytes(content)
    file = open_file(path)
    alter()
    with pytest.raises(SourceError, match=r"changed while it was read\. Run again"):
        next(file.chunks())


def test_a_file_that_is_replaced_while_it_is_read_is_read_as_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "CHUNK_BYTES", 20)
    path = write(tmp_path, "a.jsonl", LINES)
    chunks = open_file(path).chunks()
    lines = [next(chunks).line(0)]
    write(tmp_path, "new", b"new\n").rename(path)
    lines += [raw.line(i) for raw in chunks for i in range(len(raw))]
    assert lines == LINES.split(b"\n")[:2]


def test_what_the_disk_does_may_pass_and_what_the_mode_does_not(tmp_path, monkeypatch):
    path = write(tmp_path, "a.jsonl", LINES)
    monkeypatch.setattr(storage, "open", lambda *_, **__: Failing(path), raising=False)
    with pytest.raises(
        SourceUnreachable, match=r"a\.jsonl could not be read .*Input/output error.* run again"
    ):
        read(path)

    def refuse(*_, **__):
        raise PermissionError

    monkeypatch.setattr(storage, "open", refuse, raising=False)
    with pytest.raises(SourceError, match=r"a\.jsonl may not be read by this user"):
        open_file(path)


class Failing(io.FileIO):
    """A file on a disk that fails."""

    def readinto(self, _buffer):
        raise OSError(errno.EIO, "Input/output error")


# S3


def test_s3_prefix_and_object(s3):
    s3.pipe(
        {
            "shop/raw/b.jsonl": LINES,
            "shop/raw/x/a.jsonl.gz": gzip.compress(LINES),
            "shop/raw/x/c.txt": b"no",
        }
    )
    s3.pipe({"shop/rawer.jsonl": LINES, "shop/raw/_SUCCESS": b""})
    assert find("s3://shop/raw").raw_files == [
        "s3://shop/raw/b.jsonl",
        "s3://shop/raw/x/a.jsonl.gz",
    ]
    assert find("s3://shop/raw/b.jsonl").raw_files == ["s3://shop/raw/b.jsonl"]
    assert [read(path) for path in find("s3://shop/raw").raw_files] == [LINES.split(b"\n")[:2]] * 2


def test_s3_sees_files_that_arrive_between_two_calls(s3):
    s3.pipe("shop/raw/a.jsonl", LINES)
    assert len(find("s3://shop/raw").raw_files) == 1
    s3.pipe("shop/raw/b.jsonl", LINES)
    assert len(find("s3://shop/raw").raw_files) == 2
    stamp = open_file("s3://shop/raw/a.jsonl").stamp
    assert open_file("s3://shop/raw/a.jsonl").stamp == stamp
    s3.pipe("shop/raw/a.jsonl", LINES[::-1])
    assert open_file("s3://shop/raw/a.jsonl").stamp != stamp


def test_s3_mistakes_say_so(s3):
    s3.pipe({"shop/raw/a.tsv": LINES, "shop/raw.jsonl/a.tsv": LINES})
    with pytest.raises(SourceError, match=r"bucket does not exist.*Check bucket and key"):
        find("s3://nobucket/raw")
    for name in ("gone.jsonl", "raw.jsonl"):
        with pytest.raises(
            SourceError, match=rf"s3://shop/{name} does not exist.*Check bucket and key"
        ):
            open_file(f"s3://shop/{name}")
    with pytest.raises(SourceError, match="No raw files are in s3://shop/nothing"):
        find("s3://shop/nothing")
    with pytest.raises(SourceError, match="unknown ending"):
        find("s3://shop/raw/a.tsv")


def test_broken_objects_are_not_taken_for_an_absent_s3(s3):
    s3.pipe(
        {
            "shop/a.jsonl.gz": PACKED + b"junk",
            "shop/a.jsonl.zst": FRAME[:-1],
            "shop/a.parquet": LINES,
        }
    )
    for name, message in (
        ("a.jsonl.gz", "not a sound"),
        ("a.jsonl.zst", "cut off"),
        ("a.parquet", "not a sound"),
    ):
        with pytest.raises(SourceError, match=f"s3://shop/{name} is {message}") as caught:
            read(f"s3://shop/{name}")
        assert not isinstance(caught.value, SourceUnreachable)


def test_an_object_is_read_block_by_block_and_a_parquet_file_without_leaving_a_copy(
    s3, monkeypatch, tmp_path
):
    monkeypatch.setattr(storage, "CHUNK_BYTES", 1000)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    content = b"".join(b'{"session":%d,"events":[]}\n' % i for i in range(2000))
    for ending, pack in PACKERS.items():
        s3.pipe(f"shop/a{ending}", pack(content))
        assert read(f"s3://shop/a{ending}") == content.split(b"\n")[:-1]
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_not_taken_for_an_absent_s3(s3, monkeypatch):
    s3.pipe("shop/a.parquet", parquet(LINES))
    monkeypatch.setattr("tempfile.TemporaryFile", lambda: io.FileIO("/dev/full", "r+"))
    with pytest.raises(
        SourceError, match=r"a\.parquet does not fit in .*No space left.*TMPDIR"
    ) as caught:
        read("s3://shop/a.parquet")
    assert not isinstance(caught.value, SourceUnreachable)


@pytest.mark.parametrize(
    ("ending", "size"),
    [(".jsonl", 0.3), (".jsonl", 1), (".jsonl.gz", 2), (".jsonl.zst", 1), (".parquet", 0.3)],
)
def test_an_object_that_changes_while_it_is_read_is_noticed(s3, monkeypatch, ending, size):
    monkeypatch.setattr(storage, "CHUNK_BYTES", 20_000)
    path, packed = f"s3://shop/a{ending}", PACKERS[ending](many_sessions())
    s3.pipe(path, packed)
    file = open_file(path)
    stored = files.StoredBytes
    reads = []

    class Altered(stored):
        def readinto(self, buffer):
            reads.append(len(buffer))
            if len(reads) == 2:
                s3.pipe(path, random.Random(3).randbytes(int(len(packed) * size)))
            return super().readinto(buffer)

    monkeypatch.setattr(files, "StoredBytes", Altered)
    with pytest.raises(SourceError, match=r"a\..* changed while it was read\. Run again"):
        list(file.chunks())
    with pytest.raises(SourceError, match=r"changed while it was read"):
        list(file.chunks())
    s3.rm(path)
    with pytest.raises(SourceError, match=r"does not exist"):
        list(file.chunks())


def _demand_credentials(moto_url: str, after_calls: bytes) -> None:
    request = urllib.request.Request(
        f"{moto_url}/moto-api/reset-auth", data=after_calls, method="POST"
    )
    request.add_header("Content-Type", "text/plain")
    urllib.request.urlopen(request).close()


def test_wrong_credentials_are_named(s3, moto_url):
    s3.pipe("shop/raw/a.jsonl", LINES)
    _demand_credentials(moto_url, b"0")
    try:
        for function, path in ((find, "s3://shop/raw"), (open_file, "s3://shop/raw/a.jsonl")):
            with pytest.raises(
                SourceError, match=rf"S3 refused {path} .*AWS_ACCESS_KEY_ID"
            ) as caught:
                function(path)
            assert not isinstance(caught.value, SourceUnreachable)
    finally:
        _demand_credentials(moto_url, b"inf")


@pytest.mark.parametrize("url", ["nonsense", "http://"])
def test_a_wrong_endpoint_is_named(s3, monkeypatch, url):
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    with pytest.raises(SourceError, match=rf"s3://shop/raw \(.*{url}.*AWS_ENDPOINT_URL"):
        find("s3://shop/raw")


@pytest.mark.parametrize("function", [find, open_file])
def test_s3_that_refuses_connections_fails_within_seconds(s3, monkeypatch, function):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    start = time.monotonic()
    with pytest.raises(
        SourceUnreachable, match=r"S3 did not answer for s3://shop/a\.jsonl.*AWS_ENDPOINT_URL"
    ):
        function("s3://shop/a.jsonl")
    assert time.monotonic() - start < 6


@pytest.mark.parametrize("function", [find, open_file])
def test_s3_that_never_answers_fails_within_seconds(s3, monkeypatch, function):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setattr(storage, "READ_SECONDS", 1)
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        start = time.monotonic()
        with pytest.raises(SourceUnreachable):
            function("s3://shop/a.jsonl")
        assert time.monotonic() - start < 6


def many_sessions() -> bytes:
    """Enough that no reader takes it in at once, however it is packed."""
    return b"".join(
        b'{"session":%d,"events":[]}\n' % i for i in random.Random(4).sample(range(2**60), 40_000)
    )


class Line:
    """A line to the S3 emulator that breaks: after so many bytes of answers `once`, or the line is
    `dead` from then on, or `silent`; or `each` connection does."""

    def __init__(self, moto_url: str, breaks_after: int, how: str) -> None:
        self.target = ("127.0.0.1", int(moto_url.rsplit(":", 1)[1]))
        self.left, self.limit, self.how, self.broken = breaks_after, breaks_after, how, 0
        self.server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.server.getsockname()[1]}"
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self.server.accept()
                if self.broken and self.how == "dead":
                    near.close()
                    continue
                far = socket.create_connection(self.target)
                threading.Thread(target=self.pump, args=(near, far, False), daemon=True).start()
                threading.Thread(target=self.pump, args=(far, near, True), daemon=True).start()

    def pump(self, here: socket.socket, there: socket.socket, answers: bool) -> None:
        with suppress(OSError):
            while data := here.recv(4096):
                if self.broken and self.how == "silent":
                    continue
                there.sendall(data)
                self.left -= len(data) * answers
                if self.left < 0 and (self.how == "each" or not self.broken):
                    self.broken += 1
                    self.left = self.limit
                    if self.how != "silent":
                        break
        for end in (here, there):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@pytest.fixture
def broken_line(s3, moto_url, monkeypatch):
    """Put an object with many sessions on S3, and a line that breaks before it."""
    lines = []

    def start(path: str, breaks_after: int, how: str) -> Line:
        s3.pipe(path, PACKERS[path.removeprefix("s3://shop/a")](many_sessions()))
        lines.append(Line(moto_url, breaks_after, how))
        monkeypatch.setenv("AWS_ENDPOINT_URL", lines[0].url)
        return lines[0]

    monkeypatch.setattr(storage, "CHUNK_BYTES", 50_000)
    monkeypatch.setattr(storage, "READ_SECONDS", 1)
    yield start
    lines[0].server.close()


@pytest.mark.parametrize("ending", [*PACKERS])
def test_a_lost_connection_to_s3_does_not_cost_the_whole_reading(broken_line, ending):
    line = broken_line(f"s3://shop/a{ending}", 130_000, "once")
    assert read(f"s3://shop/a{ending}") == many_sessions().split(b"\n")[:-1]
    assert line.broken == 1


@pytest.mark.parametrize(
    ("ending", "breaks_after", "how"),
    [
        (".jsonl", 130_000, "dead"),
        (".jsonl.gz", 130_000, "silent"),
        (".jsonl", 20_000, "each"),
        (".parquet", 20_000, "each"),
    ],
)
def test_s3_that_goes_away_is_given_up_within_seconds(broken_line, ending, breaks_after, how):
    line = broken_line(f"s3://shop/a{ending}", breaks_after, how)
    start = time.monotonic()
    with pytest.raises(SourceUnreachable, match=rf"S3 did not answer for s3://shop/a{ending}"):
        read(f"s3://shop/a{ending}")
    assert line.broken
    assert time.monotonic() - start < 10
