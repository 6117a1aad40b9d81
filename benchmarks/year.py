"""What does a look of the monitor cost after a year of operation, beside one in the first week?

`python -m benchmarks.year` lets a small simulated shop run for a year: WEEKS weeks of LOOKS looks,
a retraining at the end of each week, and `tidy`. The shop has eight weeks of sessions before.

Real are: the load of each hour's sessions, exactly once, with its commit; the tables `windows`,
`slices`, `alarms` and `decisions`, the release log, MLflow on SQLite with each version's files, and
a page of Evidently that each look attaches; the steps of `tidy`; and, in the first and in the last
week, the whole look: tails, window, history, verdict, page, lifecycle page and status.

Simulated are: what a look measures in the weeks between, which is one real measurement, moved to
the look's window, and `tidy` runs once in each of them; trainings, in whose place the co-visitation
table of the first weeks is registered; alarms, one look of ALARMED; time, for which files are made
older, but not those of the log of `events`, which is never cut; Prefect, so that pages are written
and no events emitted.

The last line is JSON: CPU seconds, bytes (read and written by system calls) of a look in the last
week over those in the first, medians, and files and bytes that a week leaves on the disk, each week
over the first; 1 would be no growth.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from statistics import median

from benchmarks.year_shop import ShopYear

WEEKS = 52
LOOKS = 168
"""Looks of a week."""


def week(year: ShopYear, number: int, whole: bool) -> list[dict[str, float]]:
    """One week of looks; the cost of each, as `cost` counts it."""
    costs = []
    days = 7
    if whole:
        days = 1
    for hour in range(year.looks):
        before = cost()
        year.look(number * year.looks + hour, whole)
        costs.append({name: value - before[name] for name, value in cost().items()})
        if (hour + 1) % max(1, year.looks * days // 7) == 0:
            year.tidy(days)
    return costs


def cost() -> dict[str, float]:
    """CPU seconds of this process so far, and bytes that it has read and written."""
    lines = Path("/proc/self/io").read_text().splitlines()
    counted = dict(line.split(": ") for line in lines)
    return {
        "seconds": time.process_time(),
        "bytes": int(counted["rchar"]) + int(counted["wchar"]),
    }


def on_disk(home: Path) -> dict[str, float]:
    """Number of files below a folder, and their bytes."""
    sizes = [path.stat().st_size for path in home.rglob("*") if path.is_file()]
    return {"files": len(sizes), "bytes_left": sum(sizes)}


def run(home: Path, weeks: int = WEEKS, looks: int = LOOKS) -> dict:
    """Let the year pass; the dictionary of the JSON line."""
    year = ShopYear(home, looks, weeks)
    measured = []
    for number in range(weeks):
        whole = number in (0, weeks - 1)
        if whole:
            year.calibrate()
        else:
            year.calibrate_as_before()
        before = on_disk(home)
        costs = week(year, number, whole)
        left = {name: (value - before[name]) / looks for name, value in on_disk(home).items()}
        print(f"week {number}: {left} a look", flush=True)
        if whole:
            middle = {name: median(look[name] for look in costs) for name in costs[0]}
            measured.append(middle | left)
            print(measured[-1], flush=True)
        year.version = year.train()
    first = measured[0]
    last = measured[-1]
    ratios = {name: round(last[name] / first[name], 2) for name in first}
    return ratios | {"looks": weeks * looks, "first": first, "last": last}


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.year", description=__doc__)
    parser.add_argument("--weeks", type=int, default=WEEKS)
    parser.add_argument("--looks", type=int, default=LOOKS, help="looks of a week")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["KREISLAUF_HOME"] = folder
        print(json.dumps(run(Path(folder), options.weeks, options.looks)))


if __name__ == "__main__":
    main()
