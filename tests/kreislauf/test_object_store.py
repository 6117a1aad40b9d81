"""Small files: whole, at once, readable by whom the umask allows."""

import os
import stat
import time
from pathlib import Path

import fsspec
import pytest

from kreislauf import object_store


@pytest.mark.parametrize("write", [object_store.create, object_store.replace])
def test_who_may_read_a_file_is_said_by_the_umask(tmp_path: Path, write):
    fs = fsspec.filesystem("file")
    before = os.umask(0o027)
    try:
        write(fs, str(tmp_path / "log" / "1.json"), b"{}")
    finally:
        os.umask(before)
    (file,) = (tmp_path / "log").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


def test_of_two_who_create_a_file_one_succeeds_and_what_killed_ones_left_is_swept(tmp_path: Path):
    fs = fsspec.filesystem("file")
    path = tmp_path / "1.json"
    left = tmp_path / "1.json.dead.tmp"
    left.write_text("half of i")
    os.utime(left, (time.time() - 2 * object_store.DRAFT_SECONDS,) * 2)
    object_store.create(fs, str(path), b"mine")
    with pytest.raises(FileExistsError):
        object_store.create(fs, str(path), b"mine")
    assert [file.name for file in tmp_path.iterdir()] == ["1.json"]
    assert path.read_bytes() == b"mine"


def test_a_put_whose_answer_was_lost_is_a_success_and_another_one_s_is_not(s3, monkeypatch):
    put = type(s3)._pipe_file

    async def answer_lost(self, path, value, **options):
        await put(self, path, value, **options)
        raise FileExistsError(path)  # What the second try gets, which S3's client makes by itself.

    monkeypatch.setattr(type(s3), "_pipe_file", answer_lost)
    object_store.create(s3, "shop/1.json", b"mine")
    monkeypatch.undo()
    with pytest.raises(FileExistsError):
        object_store.create(s3, "shop/1.json", b"another one's")
    assert s3.cat_file("shop/1.json") == b"mine"
