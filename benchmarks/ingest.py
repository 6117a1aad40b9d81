"""What does ingesting a file in OTTO's format cost, beside the plainest copies of the same rows to
Parquet?

`python -m benchmarks.ingest` takes about ten minutes on 2 cores and needs 25 GB in the temporary
folder (set TMPDIR to another one); `--quick` takes a tenth of both and of the data. It loads 1 M
generated sessions with Kreislauf, DuckDB, Polars and a Python loop in turn, and with 1 % of the
lines broken with Kreislauf, all three times; then ten times as many sessions with Kreislauf. It
stops if a row is missing or one too many. The last line is JSON: medians of CPU seconds and of peak
memory in MB, their ratios, and how many of the broken lines are in the quarantine, byte for byte.

CPU seconds are those of the file alone; what a process needs before it (imports, compiled code) is
the start.
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import polars as pl

from benchmarks.contenders import CONTENDERS, REJECTS, Measured, measure
from benchmarks.otto import Written, generate

SESSIONS = 1_000_000
QUICK_SESSIONS = 100_000
FACTOR = 10
REPEATS = 3
BAD_SHARE = 0.01
DISK_PER_SESSION = 2_500
"""Bytes of a raw session, of its rows, and of what lies beside them while they are loaded; with
room to spare."""


@contextmanager
def workplace(sessions: int) -> Iterator[Path]:
    """A temporary folder with room for a file of `sessions` and what becomes of it. Without room,
    ends the program."""
    folder = Path(tempfile.gettempdir())
    needed = sessions * DISK_PER_SESSION
    if (free := shutil.disk_usage(folder).free) < needed:
        sys.exit(
            f"{needed / 1e9:.0f} GB needed in {folder}, {free / 1e9:.0f} GB free: set TMPDIR to a larger folder."
        )
    with tempfile.TemporaryDirectory(prefix="kreislauf-benchmark-") as name:
        yield Path(name)


def once(name: str, file: Path, written: Written) -> tuple[Measured, int]:
    """Run a contender on a generated file. Returns what it took, and the number of bad lines in
    Kreislauf's quarantine.

    Raises RuntimeError if a good line was rejected, rows are missing or there are too many.
    """
    expected = written.distinct if name == "kreislauf" else written.events
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        measured = measure(name, file, Path(folder))
        rejects = Path(folder) / REJECTS
        found = Counter(pl.read_parquet(rejects).rows() if name == "kreislauf" else [])
    bad = Counter(written.bad)
    if wrong := found - bad:
        raise RuntimeError(
            f"{len(wrong)} rejected lines were never so, or are there twice, such as {_shown(wrong)}."
        )
    if missing := bad - found:
        print(f"{len(missing)} bad lines are not in the quarantine, such as {_shown(missing)}")
    elif measured.rows != expected:
        raise RuntimeError(
            f"{name} wrote {measured.rows} rows of {file.name}, and {expected} are right."
        )
    return measured, found.total()


def _shown(lines: Iterable[tuple[int, bytes]]) -> str:
    """The first of some lines, cut off if it is long."""
    return "line {} {!r}".format(*min((number, raw[:200]) for number, raw in lines))


def run(work: Path, sessions: int, repeats: int, factor: int) -> dict:
    """All measurements, as the JSON line has them. Files go to `work` and are removed when they are
    not needed."""
    clean, dirty, large = (work / f"{name}.jsonl" for name in ("clean", "dirty", "large"))
    files = {
        clean: generate(clean, sessions),
        dirty: generate(dirty, sessions, bad_share=BAD_SHARE),
    }
    bad = files[dirty].bad
    print(
        f"{sessions} sessions, {files[clean].events} events, {clean.stat().st_size / 1e6:.0f} MB",
        flush=True,
    )
    jobs = [(name, name, clean) for name in CONTENDERS] + [("kreislauf_dirty", "kreislauf", dirty)]
    runs: dict[str, list[Measured]] = {label: [] for label, _, _ in jobs}
    recovered = len(bad)
    for turn in range(repeats):
        for label, name, file in jobs if turn % 2 == 0 else reversed(jobs):
            measured, found = once(name, file, files[file])
            runs[label].append(measured)
            recovered = min(recovered, found) if file == dirty else recovered
            print(line(label, measured), flush=True)
    clean.unlink()
    dirty.unlink()
    written = generate(large, sessions * factor)
    runs["kreislauf_large"] = [once("kreislauf", large, written)[0]]
    large.unlink()
    print(line("kreislauf_large", *runs["kreislauf_large"]), flush=True)
    return {
        **_ratios(runs),
        "bad_lines": len(bad),
        "bad_lines_recovered": recovered,
        **_medians(runs),
    }


def line(label: str, m: Measured) -> str:
    """One run for people to read."""
    return f"{label:16} {m.cpu:8.2f} CPU s (start {m.start:.2f}) {m.wall:8.2f} s {m.peak:8.0f} MB {m.rows:12} rows"


def _ratios(runs: dict[str, list[Measured]]) -> dict[str, float]:
    cpu = {label: median(m.cpu for m in found) for label, found in runs.items()}
    start = {label: median(m.start for m in found) for label, found in runs.items()}
    peak = {label: median(m.peak for m in found) for label, found in runs.items()}
    ratios = {
        "cpu_over_duckdb_copy": cpu["kreislauf"] / cpu["duckdb"],
        "python_loop_over_ours": cpu["python_loop"] / cpu["kreislauf"],
        "peak_memory_10x_over_1x": peak["kreislauf_large"] / peak["kreislauf"],
        "dirty_over_clean": cpu["kreislauf_dirty"] / cpu["kreislauf"],
        "cpu_over_duckdb_copy_with_start": (cpu["kreislauf"] + start["kreislauf"])
        / (cpu["duckdb"] + start["duckdb"]),
    }
    return {name: round(ratio, 3) for name, ratio in ratios.items()}


def _medians(runs: dict[str, list[Measured]]) -> dict[str, dict[str, float]]:
    return {
        "cpu_seconds": {
            label: round(median(m.cpu for m in found), 2) for label, found in runs.items()
        },
        "start_cpu_seconds": {
            label: round(median(m.start for m in found), 2) for label, found in runs.items()
        },
        "peak_mb": {label: round(median(m.peak for m in found)) for label, found in runs.items()},
        "rows": {label: found[0].rows for label, found in runs.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ingest", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument(
        "--quick", action="store_true", help="a tenth of the data, for a first look"
    )
    sessions = QUICK_SESSIONS if parser.parse_args().quick else SESSIONS
    with workplace(sessions * FACTOR) as work:
        print(json.dumps(run(work, sessions, REPEATS, FACTOR)))


if __name__ == "__main__":
    main()
