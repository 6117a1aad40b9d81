"""What does a look at an A/B test cost beside a plain scan of its tables?

`python -m benchmarks.look_cost` loads 10 million exposures, and a click on a tenth of them, into a
lake in a temporary folder. The first ten days are from before the test, the last ten are in it, and
every user is in both. Then, in processes of their own and in turn, REPEATS times: all columns of
both tables are counted, and the users of the test are observed, as the flow `look` does. The last
line is JSON: seconds of CPU and peak memory in 10^6 bytes of each, and how many times as much the
look takes; medians.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

ROWS = 10_000_000
PART = 2_000_000
"""Exposures of one raw file."""
ANSWERS = 10
"""Exposures of a user."""
DAYS = 20
BEGIN = 1_790_000_000_000
"""When the first one was shown: ms since 1970 UTC."""
MIDDLE = BEGIN + DAYS // 2 * 86_400_000
"""When the test began."""
MODEL = "shop"
REPEATS = 3


def exposures(first: int, count: int, rows: int) -> pl.DataFrame:
    """Raw lines of exposures, by number."""
    number = np.arange(first, first + count)
    user = np.random.default_rng(first).integers(rows // ANSWERS, size=count)
    ts = BEGIN + (number * (DAYS * 86_400_000 / rows)).astype(int)
    is_challenger = (ts >= MIDDLE) & (user % 2 == 1)
    arm = pl.Series(np.where(is_challenger, "challenger", "champion"))
    digest = pl.format("{}.{}", pl.col("number") * 2_654_435_761 % 2**32, "number")
    return pl.DataFrame({"number": number, "user": user}).select(
        request_id=digest,
        ts=pl.Series(ts),
        model=pl.lit(MODEL),
        version=pl.Series(1 + is_challenger),
        variant=arm,
        user=pl.format("a1b2c3d4-{}", pl.col("user") * 1_234_567 % 2**52),
        items=pl.lit("[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]"),
        latency_ms=pl.lit(1.5),
        release=pl.Series(1 + (ts >= MIDDLE)),
        arm=arm,
    )


def fill(rows: int, folder: Path) -> None:
    """Load exposures and feedback."""
    from kreislauf import lake
    from kreislauf.exposures import EXPOSURES, FEEDBACK
    from kreislauf.sources import RawFile

    path = folder / "lines.jsonl"
    for first in range(0, rows, PART):
        shown = exposures(first, min(PART, rows - first), rows)
        clicks = shown.gather_every(10).drop("user", "items", "latency_ms", "release", "arm")
        clicks = clicks.with_columns(kind=pl.lit("click"), item=pl.lit("1"))
        for table, lines in ((EXPOSURES, shown), (FEEDBACK, clicks)):
            lines.write_ndjson(path)
            lake.load_file(table, RawFile(str(path), table))
        print(f"{first + shown.height:,} exposures are loaded", flush=True)


def scan() -> None:
    """Count all columns of both tables."""
    from kreislauf import lake
    from kreislauf.exposures import TABLES

    for table in TABLES.values():
        lake.scan(table).select(pl.all().count()).collect(engine="streaming")


def look() -> None:
    """Observe the users of the test."""
    from kreislauf.experiment import users
    from kreislauf.experiment.running import Running, Terms
    from kreislauf.release.releases import Release

    release = Release(
        model=MODEL,
        number=2,
        champion=1,
        challenger=2,
        share=0.5,
        salt="a test",
        reason="a test",
        who="a benchmark",
        at=MIDDLE,
    )
    test = Running(release=release, begin=release, first=release, terms=Terms())
    last = users.until()
    assert last is not None
    observation = users.observe(test, last)
    assert observation is not None
    assert observation.counts.answers > 0


WAYS = {"scan": scan, "look": look}


def measure(way: str) -> dict[str, float]:
    """CPU seconds and peak memory of one way, in a process of its own."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.look_cost", "--way", way]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    return json.loads(output.splitlines()[-1])


def compare() -> dict[str, Any]:
    """Medians of both ways, and their ratios."""
    measured: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for _ in range(REPEATS):
        for way in WAYS:
            measured[way].append(measure(way))
            print(way, measured[way][-1], flush=True)
    result: dict[str, Any] = {}
    for name in ("cpu_seconds", "wall_seconds", "megabytes"):
        medians = {way: statistics.median(m[name] for m in runs) for way, runs in measured.items()}
        result |= {f"{way}_{name}": round(value, 2) for way, value in medians.items()}
        result[f"times_{name}"] = round(medians["look"] / medians["scan"], 2)
    return result


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.look_cost", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--rows", type=int, default=ROWS, help="number of exposures")
    parser.add_argument("--way", choices=[*WAYS, "fill"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way == "fill":
        fill(arguments.rows, Path(os.environ["KREISLAUF_HOME"]))
        return
    if arguments.way:
        from kreislauf.experiment import users  # noqa: F401

        wall = time.perf_counter()
        cpu = time.process_time()
        WAYS[arguments.way]()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
        seconds = {
            "cpu_seconds": time.process_time() - cpu,
            "wall_seconds": time.perf_counter() - wall,
        }
        print(json.dumps(seconds | {"megabytes": peak}))
        return
    with tempfile.TemporaryDirectory() as folder:
        os.environ["KREISLAUF_HOME"] = folder
        # What a process has taken at most, the processes that it starts have taken, too.
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.look_cost", "--way", "fill"]
        subprocess.run([*command, "--rows", str(arguments.rows)], check=True)
        print(json.dumps({"rows": arguments.rows} | compare()))


if __name__ == "__main__":
    main()
