import gzip
import hashlib
import random
import socket
import time
import urllib.request

import pytest

from tasks import source
from tasks.source import SourceError, SourceUnreachable, find, read

LINES = b'{"session":1}\n{"session":2}\n'


def test_folder_is_searched_to_the_bottom_and_sorted(tmp_path):
    (tmp_path / "b" / "c").mkdir(parents=True)
    for name in ("b/c/z.jsonl", "a.jsonl.gz", "b/notes.txt", "b/data.json"):
        (tmp_path / name).write_bytes(LINES)
    assert find(str(tmp_path)) == [str(tmp_path / "a.jsonl.gz"), str(tmp_path / "b/c/z.jsonl")]


def test_single_file_keeps_the_path_that_was_given(tmp_path, monkeypatch):
    (tmp_path / "a.jsonl").write_bytes(LINES)
    monkeypatch.chdir(tmp_path)
    assert find("./a.jsonl") == ["./a.jsonl"]


def test_plain_and_packed_files_have_the_same_lines_and_the_hash_of_what_is_stored(tmp_path):
    plain, packed = tmp_path / "a.jsonl", tmp_path / "b.jsonl.gz"
    plain.write_bytes(LINES)
    packed.write_bytes(gzip.compress(LINES))
    for path in (plain, packed):
        raw = read(str(path))
        assert raw.lines == [b'{"session":1}', b'{"session":2}']
        assert raw.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


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
def test_lines_are_cut_at_line_feeds_only_and_unchanged(tmp_path, content, lines):
    (tmp_path / "a.jsonl").write_bytes(content)
    assert read(str(tmp_path / "a.jsonl")).lines == lines


def test_gzip_of_several_members_is_read_whole(tmp_path):
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b"a\n") + gzip.compress(b"b\n"))
    assert read(str(tmp_path / "a.jsonl.gz")).lines == [b"a", b"b"]


def test_what_cannot_be_found_says_so(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.csv").write_bytes(LINES)
    with pytest.raises(SourceError, match=r"nowhere does not exist .* Check the path"):
        find(str(tmp_path / "nowhere"))
    with pytest.raises(SourceError, match=r"No raw files are in .*empty\. Put files that end in \.jsonl"):
        find(str(tmp_path / "empty"))
    for function in (find, read):
        with pytest.raises(SourceError, match=r"a\.csv has an unknown ending"):
            function(str(tmp_path / "a.csv"))
    with pytest.raises(SourceError, match="is not a file"):
        read(str(tmp_path / "gone.jsonl"))


PACKED = gzip.compress(random.Random(1).randbytes(3000))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b"", "is empty"),
        ("a.jsonl.gz", b"", "is empty"),
        ("a.jsonl.gz", gzip.compress(b""), "is empty"),
        ("a.jsonl.gz", PACKED[:-20], "is cut off"),
        ("a.jsonl.gz", PACKED[:5], "is cut off"),
        ("a.jsonl.gz", PACKED[:1500] + b"\0\0\0" + PACKED[1503:], "is not a sound gzip file"),
        ("a.jsonl.gz", LINES, "is not a sound gzip file"),
        ("a.jsonl.gz", PACKED + b"junk", "is not a sound gzip file"),
    ],
)
def test_broken_files_say_where_and_what(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(SourceError, match=f"{name} {message}"):
        read(str(path))


def test_s3_prefix_and_object(s3):
    s3.pipe({"shop/raw/b.jsonl": LINES, "shop/raw/x/a.jsonl.gz": gzip.compress(LINES), "shop/raw/x/c.txt": b"no"})
    s3.pipe("shop/rawer.jsonl", LINES)
    assert find("s3://shop/raw") == ["s3://shop/raw/b.jsonl", "s3://shop/raw/x/a.jsonl.gz"]
    assert find("s3://shop/raw/b.jsonl") == ["s3://shop/raw/b.jsonl"]
    assert [read(path).lines for path in find("s3://shop/raw")] == [LINES.split(b"\n")[:2]] * 2


def test_s3_sees_files_that_arrive_between_two_calls(s3):
    s3.pipe("shop/raw/a.jsonl", LINES)
    assert len(find("s3://shop/raw")) == 1
    s3.pipe("shop/raw/b.jsonl", LINES)
    assert len(find("s3://shop/raw")) == 2


def test_s3_mistakes_say_so(s3):
    s3.pipe("shop/raw/a.csv", LINES)
    with pytest.raises(SourceError, match=r"bucket does not exist.*Check bucket and key"):
        find("s3://nobucket/raw")
    with pytest.raises(SourceError, match=r"s3://shop/gone\.jsonl does not exist"):
        read("s3://shop/gone.jsonl")
    with pytest.raises(SourceError, match="No raw files are in s3://shop/nothing"):
        find("s3://shop/nothing")
    with pytest.raises(SourceError, match="unknown ending"):
        find("s3://shop/raw/a.csv")


def _demand_credentials(moto_url: str, after_calls: bytes) -> None:
    request = urllib.request.Request(f"{moto_url}/moto-api/reset-auth", data=after_calls, method="POST")
    request.add_header("Content-Type", "text/plain")
    urllib.request.urlopen(request).close()


def test_wrong_credentials_are_named(s3, moto_url):
    _demand_credentials(moto_url, b"0")
    try:
        with pytest.raises(SourceError, match=r"S3 refused s3://shop/raw .*AWS_ACCESS_KEY_ID") as caught:
            find("s3://shop/raw")
    finally:
        _demand_credentials(moto_url, b"inf")
    assert not isinstance(caught.value, SourceUnreachable)


@pytest.mark.parametrize("function", [find, read])
def test_s3_that_refuses_connections_fails_within_seconds(s3, monkeypatch, function):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    start = time.monotonic()
    with pytest.raises(SourceUnreachable, match=r"S3 did not answer for s3://shop/a\.jsonl.*AWS_ENDPOINT_URL"):
        function("s3://shop/a.jsonl")
    assert time.monotonic() - start < 6


def test_s3_that_never_answers_fails_within_seconds(s3, monkeypatch):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setattr(source, "READ_SECONDS", 1)
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        start = time.monotonic()
        with pytest.raises(SourceUnreachable):
            read("s3://shop/a.jsonl")
        assert time.monotonic() - start < 6
