"""Lands a topic, or loads the files of a folder, in child processes that are killed one after the
other:

    python -m tests.long.lander PLACE MOMENT...

A MOMENT is a number of milliseconds from a child's first step until it gets SIGKILL; or a step with
the number of a call to it, before which, or with `!` after which, the child sends SIGKILL to
itself. One line is printed for each kill: the step that the child was in, and how many batches it
had landed.
"""

import importlib
import mmap
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from deployments.stack import ROOT
from kreislauf import lake, sources
from kreislauf.lake import data_files, delta, intake, quarantine
from kreislauf.sources import kafka
from models import spec
from tasks.stream import land_topic

STEPS = {
    "read": (kafka.Reader, "read_batch"),
    "rejects": (quarantine, "publish_rejects"),
    "spool": (intake.Intake, "add"),
    "put": (data_files, "put"),
    "commit": (delta, "commit"),
    "landed": (kafka.Reader, "confirm"),
}
"""Every step of a landing, and what does it. `rejects` contains a `commit` too, of the rejects."""
# What a child would import on its way; none of it starts threads, which do not survive a fork.
LAZY_IMPORTS = (
    "hypothesis.strategies",
    "pandera.backends.polars.container",
    "pyarrow.parquet",
    "s3fs",
)


def kill(place: str, moments: Sequence[str], tmp_path: Path) -> None:
    """Land a topic, or load a folder's files, in processes that are killed at these moments; prints
    what they hit."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.long.lander", place, *moments],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=1200,
    )
    kills = [line.split() for line in done.stdout.splitlines()]
    assert (done.returncode, len(kills)) == (0, len(moments)), done.stdout + done.stderr
    print(
        dict(Counter(step for step, _ in kills)),
        sum(int(landed) for _, landed in kills),
        "batches landed",
    )


def watch(step: str, owner: object, name: str, note: mmap.mmap, moment: str) -> None:
    """Note in shared memory that a step is going on, and die at the moment."""
    inner: Callable = getattr(owner, name)
    calls = 0

    def outer(*args: object, **options: object) -> object:
        nonlocal calls
        calls += 1
        before = note[0]
        note[0] = 1 + list(STEPS).index(step)
        if moment == f"{step}{calls}":
            os.kill(os.getpid(), signal.SIGKILL)
        result = inner(*args, **options)
        if moment == f"{step}{calls}!":
            os.kill(os.getpid(), signal.SIGKILL)
        note[0] = before
        if step == "landed":
            note[1] = min(255, note[1] + 1)
        return result

    setattr(owner, name, outer)


def child(place: str, note: mmap.mmap, moment: str) -> None:
    """Land small batches, or load small files, for ever."""
    for step, (owner, name) in STEPS.items():
        watch(step, owner, name, note, moment)
    table = spec.load("session_recommender").table
    while Path(place).is_dir():
        for path in sources.find(place).raw_files:
            lake.load_file(table, sources.open_file(path, table))
    for _ in land_topic(
        table,
        place,
        40,
        0.2,
        1.0,
        until_end=False,
        skip_lost=False,
        mapping=None,
        is_over=lambda: False,
    ):
        pass


def main(place: str, moments: list[str]) -> None:
    for module in LAZY_IMPORTS:
        importlib.import_module(module)
    note = mmap.mmap(-1, 2)
    for moment in moments:
        note[:2] = b"\0\0"
        pid = os.fork()
        ended = (0, 0)
        if not pid:
            child(place, note, moment)
        end = time.monotonic() + 60
        while not (ended := os.waitpid(pid, os.WNOHANG))[0] and time.monotonic() < end:
            if moment.isdigit() and note[0]:
                time.sleep(float(moment) / 1000)
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.001)
        assert ended[1] == signal.SIGKILL, (
            f"a child that {moment} should have killed ended with {ended}"
        )
        print(["between", *STEPS][note[0]], note[1], flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
