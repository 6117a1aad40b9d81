"""A full disk is called one by everything that writes, on a real small disk of a megabyte."""

import os
import subprocess
import tempfile
from pathlib import Path

import polars as pl
import pytest

from kreislauf import full_disk, lake, object_store
from kreislauf.full_disk import DiskFull
from kreislauf.lake import compaction, delta, journal
from models.session_recommender.schema import EVENTS
from serving import spool
from tests.kreislauf.lake.test_lake import File, line
from tests.serving import test_spool


@pytest.fixture
def disk(tmp_path):
    """A disk of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"this user may not mount a disk: {mounted.stderr}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> None:
    """Leave no room."""
    with (folder / "large").open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            return


def load(number):
    return lake.load_file(EVENTS, File(f"{number}.jsonl", [line(number, (number, number))]))


def test_a_lake_on_a_full_disk_is_not_said_to_be_silent(disk, monkeypatch):
    monkeypatch.setenv("KREISLAUF_LAKE", str(disk / "lake"))
    load(1)
    load(2)
    fill(disk)
    full = rf"The disk of {disk}/lake/events is full \(.*set KREISLAUF_LAKE to a folder"
    for write in (
        lambda: load(3),
        lambda: compaction.compact("events"),
        lambda: delta.checkpoint("events"),
        lambda: journal.delete("events", "aid = 1"),
    ):
        with pytest.raises(DiskFull, match=full) as caught:
            write()
        assert "AWS" not in str(caught.value)
    with pytest.raises(DiskFull, match=f"The disk of {disk}/lake/windows is full"):
        journal.append_once("windows", "key", pl.DataFrame({"end": [1]}))
    (disk / "large").unlink()
    load(3)
    assert lake.read(EVENTS)["session"].to_list() == [1, 2, 3]


def test_a_lake_on_s3_does_not_get_the_blame_for_the_disk_here(disk, s3_lake, monkeypatch):
    monkeypatch.setenv("KREISLAUF_HOME", str(disk / "home"))
    load(1)
    fill(disk)
    with pytest.raises(DiskFull, match=rf"The disk of {disk}/home/spool is full \(.*HOME to a f"):
        load(2)
    (disk / "large").unlink()
    assert load(2).rows_kept == 1


def test_small_files_and_the_spool_name_their_disk_and_leave_no_half(disk):
    kept = spool.Spool(disk / "spool")
    fill(disk)
    full = f"The disk of {disk}/spool is full .*set KREISLAUF_SPOOL"
    with pytest.raises(DiskFull, match=full):  # noqa: PT012
        for number in range(100):
            kept.write(test_spool.line(number))
    fs, path = object_store.locate(str(disk), "session_recommender", "1.json")
    for write in (object_store.create, object_store.replace):
        with pytest.raises(DiskFull, match=f"The disk of {disk}/session_recommender is full"):
            write(fs, path, bytes(5_000))
    assert os.listdir(disk / "session_recommender") == []


def test_what_libraries_say_of_a_full_disk_is_known(disk):
    """Polars, safetensors, SQLite and PyTorch hand on no number."""
    import sqlite3

    import torch
    from safetensors.torch import save_file

    rows = pl.DataFrame({"number": range(10**6)})
    tensors = {"weights": torch.zeros(10**6)}
    table = sqlite3.connect(disk / "mlflow.db")
    table.execute("create table runs (name)")
    for write in (
        lambda: rows.write_parquet(disk / "rows.parquet", compression="uncompressed"),
        lambda: rows.write_ipc(disk / "rows.arrow"),
        lambda: torch.save(tensors, disk / "last.ckpt"),
        lambda: save_file(tensors, disk / "weights.safetensors"),
        lambda: table.execute("insert into runs values (?)", (bytes(3_000_000),)),
    ):
        places = {disk: "KREISLAUF_TRAINING", tempfile.gettempdir(): "TMPDIR"}
        full = f"The disk of {disk} is full .* KREISLAUF_TRAINING"
        with pytest.raises(DiskFull, match=full), full_disk.named(places):
            write()
        for path in disk.glob("[!m]*"):
            path.unlink()


def test_another_error_stays_what_it_is(tmp_path):
    for error in (OSError(13, "Permission denied"), ValueError("No space left on device")):
        with pytest.raises(type(error)) as caught, full_disk.named({tmp_path: "TMPDIR"}):
            raise error
        assert caught.value is error
