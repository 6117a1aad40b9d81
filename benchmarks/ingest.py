"""What does ingesting a file in OTTO's format cost, beside plain copies of its rows to Parquet?

`python -m benchmarks.ingest` takes about ten minutes on 2 cores and needs 25 GB in the temporary
folder (set TMPDIR to another one); `--quick` takes a tenth of both and of the data. It loads 1 M
generated sessions with Kreislauf, DuckDB, Polars and a Python loop in turn. It loads a file with
1 % of its lines broken with Kreislauf, and the same events as CSV and as JSON lines of one event
each with Kreislauf and DuckDB. It loads the CSV file into the table of text ids, too, with the
sessions that it has, and with those for users, whose sessions are made by a gap of inactivity. Each
of these runs three times. Then it loads ten times as many sessions with Kreislauf, as they are and
by a gap. It stops if a row is missing or one too many. The last line is JSON:
medians of CPU seconds and of peak memory in MB, their ratios, and how many of the broken lines are
in the quarantine, byte for byte.

CPU seconds are those of the file alone. The start has what a process needs before it: imports, and
compiled code.
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

from benchmarks.contenders import (
    CONTENDERS,
    FLAT_CONTENDERS,
    OURS,
    REJECTS,
    SESSION_CONTENDERS,
    Measured,
    measure,
)
from benchmarks.otto import Written, generate

SESSIONS = 1_000_000
QUICK_SESSIONS = 100_000
FACTOR = 10
REPEATS = 3
BAD_SHARE = 0.01
DISK_PER_SESSION = 2_500
"""Bytes of a raw session, of its rows, and of the files of the load; with room to spare."""


@contextmanager
def workplace(sessions: int) -> Iterator[Path]:
    """A temporary folder with room for a file of `sessions` and its rows.

    Ends the program if there is too little room.
    """
    folder = Path(tempfile.gettempdir())
    needed = sessions * DISK_PER_SESSION
    free = shutil.disk_usage(folder).free
    if free < needed:
        sys.exit(
            f"{needed / 1e9:.0f} GB needed in {folder}, {free / 1e9:.0f} GB free: "
            "set TMPDIR to a larger folder."
        )
    with tempfile.TemporaryDirectory(prefix="kreislauf-benchmark-") as name:
        yield Path(name)


def run_contender(name: str, file: Path, written: Written) -> tuple[Measured, int]:
    """Run a contender on a generated file.

    Returns its measurements, and the number of bad lines in Kreislauf's quarantine. Raises
    RuntimeError if a good line was rejected, rows are missing or there are too many.
    """
    expected = written.events
    if name in OURS:
        expected = written.distinct
    rejected: Counter = Counter()
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        measured = measure(name, file, Path(folder))
        if name in OURS:
            rejected.update(pl.read_parquet(Path(folder) / REJECTS).rows())
    bad = Counter(written.bad)
    invented = rejected - bad
    if invented:
        raise RuntimeError(
            f"{len(invented)} rejected lines were never so, or are there twice, "
            f"such as {_shown(invented)}."
        )
    missing = bad - rejected
    if missing:
        print(f"{len(missing)} bad lines are not in the quarantine, such as {_shown(missing)}")
    elif measured.rows != expected:
        raise RuntimeError(
            f"{name} wrote {measured.rows} rows of {file.name}, and {expected} are right."
        )
    return measured, rejected.total()


def _shown(lines: Iterable[tuple[int, bytes]]) -> str:
    """The first of some lines as text, cut off if it is long."""
    return "line {} {!r}".format(*min((number, raw[:200]) for number, raw in lines))


def run(work: Path, sessions: int, repeats: int, factor: int) -> dict:
    """All measurements, as the JSON line has them.

    Files go to `work` and are removed when they are not needed any more.
    """
    clean, dirty = (work / f"{name}.jsonl" for name in ("clean", "dirty"))
    files = {
        clean: generate(clean, sessions),
        dirty: generate(dirty, sessions, bad_share=BAD_SHARE),
    }
    bad = files[dirty].bad
    print(
        f"{sessions} sessions, {files[clean].events} events, {clean.stat().st_size / 1e6:.0f} MB",
        flush=True,
    )
    flat = write_flat(clean)
    files |= dict.fromkeys(flat.values(), files[clean])
    jobs = [(name, name, clean) for name in CONTENDERS] + [("kreislauf_dirty", "kreislauf", dirty)]
    jobs += [
        (f"{name.removesuffix('_flat')}_{shape}", name, file)
        for shape, file in flat.items()
        for name in FLAT_CONTENDERS
    ]
    jobs += [(name, name, flat["csv"]) for name in SESSION_CONTENDERS]
    runs: dict[str, list[Measured]] = {label: [] for label, _, _ in jobs}
    recovered = len(bad)
    for _ in range(repeats):
        for label, name, file in jobs:
            measured, rejected = run_contender(name, file, files[file])
            runs[label].append(measured)
            if file == dirty:
                recovered = min(recovered, rejected)
            print(describe(label, measured), flush=True)
        jobs.reverse()
    for file in (clean, dirty, *flat.values()):
        file.unlink()
    runs |= run_large(work, sessions * factor)
    return {
        **_ratios(runs),
        "bad_lines": len(bad),
        "bad_lines_recovered": recovered,
        **_medians(runs),
    }


def run_large(work: Path, sessions: int) -> dict[str, list[Measured]]:
    """Measurements of Kreislauf on as many sessions as this, by label."""
    large = work / "large.jsonl"
    written = generate(large, sessions)
    measured, _ = run_contender("kreislauf", large, written)
    print(describe("kreislauf_large", measured), flush=True)
    flat = work / "large_flat.csv"
    _events(large).sink_csv(flat)
    large.unlink()
    by_gap, _ = run_contender("kreislauf_by_gap", flat, written)
    print(describe("kreislauf_by_gap_large", by_gap), flush=True)
    flat.unlink()
    return {"kreislauf_large": [measured], "kreislauf_by_gap_large": [by_gap]}


def write_flat(nested: Path) -> dict[str, Path]:
    """Files with the events of one of sessions, a row each, by their shape."""
    files = {"csv": nested.with_name("flat.csv"), "flat": nested.with_name("flat.jsonl")}
    _events(nested).sink_csv(files["csv"])
    _events(nested).sink_ndjson(files["flat"])
    return files


def _events(nested: Path) -> pl.LazyFrame:
    """The events of a file of sessions."""
    return pl.scan_ndjson(nested).explode("events").unnest("events")


def describe(label: str, run: Measured) -> str:
    """One run as a line of text."""
    return (
        f"{label:16} {run.cpu:8.2f} CPU s (start {run.start:.2f}) {run.wall:8.2f} s "
        f"{run.peak:8.0f} MB {run.rows:12} rows"
    )


def medians(runs: dict[str, list[Measured]], field: str) -> dict[str, float]:
    """Median of a field over the runs of each label."""
    return {label: median(_values(repeats, field)) for label, repeats in runs.items()}


def _values(repeats: list[Measured], field: str) -> list[float]:
    return [getattr(run, field) for run in repeats]


def _ratios(runs: dict[str, list[Measured]]) -> dict[str, float]:
    """Quotients of the medians."""
    cpu = medians(runs, "cpu")
    start = medians(runs, "start")
    peak = medians(runs, "peak")
    ours = cpu["kreislauf"] + start["kreislauf"]
    duckdb = cpu["duckdb"] + start["duckdb"]
    ratios = {
        "cpu_over_duckdb_copy": cpu["kreislauf"] / cpu["duckdb"],
        "python_loop_over_ours": cpu["python_loop"] / cpu["kreislauf"],
        "peak_memory_10x_over_1x": peak["kreislauf_large"] / peak["kreislauf"],
        "dirty_over_clean": cpu["kreislauf_dirty"] / cpu["kreislauf"],
        "csv_over_duckdb_copy": cpu["kreislauf_csv"] / cpu["duckdb_csv"],
        "flat_over_duckdb_copy": cpu["kreislauf_flat"] / cpu["duckdb_flat"],
        "sessionise_over_plain": cpu["kreislauf_by_gap"] / cpu["kreislauf_given"],
        "sessionise_memory_10x_over_1x": peak["kreislauf_by_gap_large"] / peak["kreislauf_by_gap"],
        "cpu_over_duckdb_copy_with_start": ours / duckdb,
    }
    return {name: round(ratio, 3) for name, ratio in ratios.items()}


def _medians(runs: dict[str, list[Measured]]) -> dict[str, dict[str, float]]:
    """Medians by measurement and label."""
    cpu = medians(runs, "cpu")
    start = medians(runs, "start")
    peak = medians(runs, "peak")
    return {
        "cpu_seconds": {label: round(value, 2) for label, value in cpu.items()},
        "start_cpu_seconds": {label: round(value, 2) for label, value in start.items()},
        "peak_mb": {label: round(value) for label, value in peak.items()},
        "rows": {label: repeats[0].rows for label, repeats in runs.items()},
    }


def main() -> None:
    """Measure, and print the result."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ingest", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument(
        "--quick", action="store_true", help="a tenth of the data, for a first look"
    )
    sessions = SESSIONS
    if parser.parse_args().quick:
        sessions = QUICK_SESSIONS
    with workplace(sessions * FACTOR) as work:
        print(json.dumps(run(work, sessions, REPEATS, FACTOR)))


if __name__ == "__main__":
    main()
