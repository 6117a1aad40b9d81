"""The cache of a training's rows gives back what the lake would, or nothing."""

import importlib
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from benchmarks.row_reads import reads_per_retraining
from kreislauf import lake
from kreislauf.lake import row_cache
from models.session_recommender.schema import EVENTS
from tests.conftest import ROOT
from tests.kreislauf.lake.test_lake import T0, File, line

reading = importlib.import_module("kreislauf.lake.reading")
WATERMARK = T0 + 99_000


@pytest.fixture
def snapshot() -> row_cache.Snapshot:
    """100 sessions in the lake, nothing of them in the cache."""
    lines = [line(n, (n, n), (n + 1, n, ("clicks", "carts", "orders")[n % 3])) for n in range(100)]
    version = lake.load_file(EVENTS, File("shop/a.jsonl", lines)).version
    return row_cache.Snapshot(EVENTS, version, WATERMARK, lake.digest(lake.read(EVENTS)))


@pytest.fixture
def reads(monkeypatch) -> list[str]:
    """Tables that are read from the lake from now on."""
    tables: list[str] = []
    scan = reading.scan

    def counted(table, *arguments, **options):
        tables.append(table.name)
        return scan(table, *arguments, **options)

    monkeypatch.setattr(reading, "scan", counted)
    return tables


def rebuilt(snapshot: row_cache.Snapshot) -> pl.DataFrame:
    return lake.rebuild(
        snapshot.table, snapshot.version, snapshot.watermark, snapshot.digest, snapshot.without
    )


def cached(home: Path) -> list[Path]:
    return sorted((home / "cache" / "rows").glob("*.arrow"))


def test_mapped_rows_are_the_lakes_bit_for_bit_and_read_once(snapshot, reads, home):
    original = lake.read(EVENTS)
    for _ in range(3):
        rows = rebuilt(snapshot)
        assert rows.equals(original)
        assert rows.schema == original.schema
        assert rows.flags == original.flags
        assert rows.n_chunks() == 1
        assert lake.digest(rows) == snapshot.digest
    assert reads == ["events"] * 2, "once for the comparison, once by the first of three"
    (path,) = cached(home)
    assert str(path) in Path("/proc/self/maps").read_text()


def test_another_process_maps_what_this_one_has_written(snapshot, home):
    rebuilt(snapshot)
    code = (
        "import sys; from kreislauf import lake\n"
        "sys.modules['kreislauf.lake.reading'].scan = None\n"
        "from models.session_recommender.schema import EVENTS\n"
        f"rows = lake.rebuild(EVENTS, {snapshot.version}, {WATERMARK}, '{snapshot.digest}')\n"
        f"assert lake.digest(rows) == '{snapshot.digest}'"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def damaged(content: bytes) -> dict[str, bytes]:
    middle = len(content) // 2
    return {
        "a bit": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
        "the end": content[:middle],
        "all": b"something else",
        "emptied": b"",
    }


@pytest.mark.parametrize("damage", damaged(b"."))
def test_a_damaged_file_is_noticed_and_the_lake_is_read(snapshot, reads, home, damage):
    original = rebuilt(snapshot).clone()
    (path,) = cached(home)
    content = damaged(path.read_bytes())[damage]
    # Another file, so that what is mapped here stays.
    path.unlink()
    path.write_bytes(content)
    assert rebuilt(snapshot).equals(original)
    assert reads == ["events"] * 2
    (mended,) = cached(home)
    assert mended.read_bytes() != content
    assert rebuilt(snapshot).equals(original)
    assert reads == ["events"] * 2


def test_a_file_that_is_written_to_is_checked_again(snapshot, home):
    rebuilt(snapshot)
    (path,) = cached(home)
    assert row_cache._is_whole(path)
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    assert not row_cache._is_whole(path)


def test_another_question_is_never_answered_with_these_rows(snapshot):
    rebuilt(snapshot)
    for other_snapshot in (
        replace(snapshot, version=snapshot.version - 1),
        replace(snapshot, watermark=WATERMARK - 1_000),
        replace(snapshot, without=[(T0, T0 + 1)]),
    ):
        with pytest.raises(lake.LakeError):
            rebuilt(other_snapshot)


def test_rows_of_other_columns_than_todays_are_not_used(snapshot, reads):
    rebuilt(snapshot)
    table = replace(EVENTS)
    table.__dict__["dtypes"] = EVENTS.schema.empty().drop("type").schema
    assert row_cache.find(replace(snapshot, table=table)) is None


def test_a_deleted_cache_is_only_slower(snapshot, reads, home):
    rows = rebuilt(snapshot)
    for path in cached(home):
        path.unlink()
    assert rebuilt(snapshot).equals(rows), "what is mapped stays as long as it is used"
    assert reads == ["events"] * 2


def test_only_the_newest_files_stay_and_no_old_drafts(snapshot, home):
    rows = lake.read(EVENTS)
    folder = home / "cache" / "rows"
    for number in range(row_cache.KEPT + 2):
        row_cache.store(replace(snapshot, watermark=WATERMARK + number), rows)
        newest = row_cache._folder().glob(f"{snapshot.key}*")
        for path in newest:
            os.utime(path, (1, 1))
    assert len(cached(home)) == row_cache.KEPT
    assert row_cache.find(snapshot) is None
    for name, age in (("left.tmp", 2 * row_cache.DRAFT_SECONDS), ("new.tmp", 0)):
        (folder / name).mkdir()
        os.utime(folder / name, (time.time() - age, time.time() - age))
    row_cache.store(snapshot, rows)
    assert [path.name for path in folder.glob("*.tmp")] == ["new.tmp"]


def test_a_writer_that_dies_leaves_no_half_file(snapshot, home, monkeypatch):
    def die(self, path, **_):
        Path(path).write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pl.DataFrame, "write_ipc", die)
        with pytest.raises(KeyboardInterrupt):
            rebuilt(snapshot)
    assert cached(home) == []
    assert rebuilt(snapshot).height == 200


def test_a_cache_that_cannot_be_written_is_only_slower(snapshot, reads, home):
    folder = home / "cache" / "rows"
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.write_text("a file where the folder should be")
    rows = rebuilt(snapshot)
    assert rebuilt(snapshot).equals(rows)
    assert reads == ["events"] * 2


def test_a_file_that_another_process_sweeps_meanwhile_is_no_error(snapshot, home, monkeypatch):
    rows = lake.read(EVENTS)
    for number in range(row_cache.KEPT):
        row_cache.store(replace(snapshot, watermark=WATERMARK + number), rows)
    glob = Path.glob

    def vanish(folder, pattern):
        paths = list(glob(folder, pattern))
        for path in paths:
            if path.is_file():
                path.unlink()
        return paths

    monkeypatch.setattr(Path, "glob", vanish)
    assert row_cache.store(snapshot, rows).equals(rows)


def test_a_retraining_reads_its_rows_once(monkeypatch):
    assert reads_per_retraining() == 1
    monkeypatch.setattr(row_cache, "find", lambda snapshot: None)
    assert reads_per_retraining() == 4, "to plan, to fit, to judge, to describe"
