"""Segments: rotated, adopted after a kill, and honest about a disk that is full."""

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from kreislauf import exposures
from kreislauf.exposures import Feedback
from serving import spool
from tests.conftest import ROOT


def line(number: int) -> Feedback:
    return Feedback(f"r{number}", 1_700_000_000_000, "tiny", 1, "champion", "click", str(number))


def numbers(folder: Path, pattern: str = "*.jsonl") -> list[int]:
    lines = [raw for path in sorted(folder.glob(pattern)) for raw in path.read_bytes().splitlines()]
    return [int(msgspec.json.decode(raw, type=Feedback).item) for raw in lines]


def test_segments_are_closed_by_size_by_age_and_at_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(spool, "SEGMENT_BYTES", 300)
    kept = spool.Spool(tmp_path, seconds=0)
    for number in range(7):
        kept.write(line(number))
    assert len(list(tmp_path.glob("*.jsonl"))) == 2
    kept.write(line(7))
    kept.tick()
    assert numbers(tmp_path) == list(range(8))
    kept.write(line(8))
    assert numbers(tmp_path, "*.open") == [8]
    kept.close()
    assert numbers(tmp_path) == list(range(9))
    kept.close()
    assert list(tmp_path.glob("*.open")) == []


def test_a_segment_is_closed_when_collect_wants_it(tmp_path):
    kept = spool.Spool(tmp_path)
    kept.write(line(0))
    kept.tick()
    assert numbers(tmp_path, "*.open") == [0]
    (tmp_path / exposures.COLLECTING).touch()
    kept.tick()
    assert numbers(tmp_path) == [0]


def test_a_killed_gateway_s_lines_are_adopted_and_a_living_one_s_are_not(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from serving.spool import Spool; "
        "from tests.serving.test_spool import line; kept = Spool(Path(sys.argv[1]))\n"
        "for number in range(100): kept.write(line(number))\n"
        "print('written', flush=True); time.sleep(60)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE
    )
    assert child.stdout
    assert child.stdout.readline() == b"written\n"
    spool.Spool(tmp_path)
    assert len(list(tmp_path.glob("*.open"))) == 1
    child.send_signal(signal.SIGKILL)
    child.wait()
    spool.Spool(tmp_path)
    assert numbers(tmp_path) == list(range(100))


def test_a_gateway_that_starts_beside_another_leaves_its_segment_alone(tmp_path, monkeypatch):
    flock = spool.fcntl.flock
    kept = spool.Spool(tmp_path)

    def slowly(file, how: int) -> None:
        monkeypatch.undo()
        spool.adopt(tmp_path)
        flock(file, how)

    monkeypatch.setattr(spool.fcntl, "flock", slowly)
    kept.write(line(0))
    assert numbers(tmp_path, "*.open") == [0], (
        "a segment that is written to is not up for collection"
    )


def test_a_segment_that_its_gateway_closes_meanwhile_is_no_reason_not_to_start(
    tmp_path, monkeypatch
):
    flock = spool.fcntl.flock
    kept = spool.Spool(tmp_path)
    kept.write(line(0))

    def late(file, how: int) -> None:
        kept.close()
        flock(file, how)

    monkeypatch.setattr(spool.fcntl, "flock", late)
    spool.Spool(tmp_path)
    assert numbers(tmp_path) == [0]


def test_a_segment_whose_folder_is_gone_is_given_up(tmp_path):
    kept = spool.Spool(tmp_path / "spool")
    kept.write(line(0))
    (tmp_path / "spool").rename(tmp_path / "gone")
    with pytest.raises(FileNotFoundError):
        kept.close()
    with pytest.raises(FileNotFoundError):
        kept.write(line(1))
    spool.Spool(tmp_path / "gone")
    assert numbers(tmp_path / "gone") == [0]


def test_a_line_never_gets_into_a_file_that_is_not_the_spools(tmp_path, monkeypatch):
    kept = spool.Spool(tmp_path / "spool")

    def lose_the_folder(file: int, how: int) -> None:
        (segment,) = (tmp_path / "spool").iterdir()
        segment.unlink()
        segment.parent.rmdir()

    monkeypatch.setattr(spool.fcntl, "flock", lose_the_folder)
    with pytest.raises(FileNotFoundError):
        kept.write(line(0))
    with (tmp_path / "another").open("wb") as another:
        with pytest.raises(FileNotFoundError):
            kept.write(line(1))
        assert another.tell() == 0


def test_a_full_disk_is_said_and_leaves_no_half_line(tmp_path):
    kept = spool.Spool(tmp_path)
    kept.write(line(0))
    size = next(tmp_path.glob("*.open")).stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, before[1]))
        with pytest.raises(OSError, match=r"only 10 of \d+ bytes were written"):
            kept.write(line(1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    kept.write(line(2))
    kept.close()
    assert numbers(tmp_path) == [0, 2]
    assert os.listdir(tmp_path) == [next(tmp_path.glob("*.jsonl")).name]
