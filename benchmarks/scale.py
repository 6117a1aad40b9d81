"""How do CPU time and memory of the ingest grow with the data?

`python -m benchmarks.scale` ingests files of 1, 3, 10 and 30 M events, each three times; `python -m
benchmarks.scale 100` adds 100 M. It needs 5 GB in the temporary folder (set TMPDIR to another one),
with 100 M events 15 GB. The last line is JSON. Its numbers for all of OTTO's data are not measured:
a line through the largest two sizes leads there.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from benchmarks import ingest
from benchmarks.contenders import Measured
from benchmarks.otto import EVENTS_PER_SESSION, FULL_EVENTS, generate

SIZES = (1, 3, 10, 30)
"""Million events of each file."""
REPEATS = 3
"""Runs of each file."""


def run(work: Path, sizes: list[float], repeats: int) -> dict:
    """Measure each of `sizes` (million events); the dictionary of the JSON line."""
    runs: dict[int, list[Measured]] = {}
    for size in sizes:
        file = work / "raw.jsonl"
        written = generate(file, round(size * 1e6 / EVENTS_PER_SESSION))
        runs[written.events] = []
        for _ in range(repeats):
            measured, _ = ingest.run_contender("kreislauf", file, written)
            runs[written.events].append(measured)
            print(ingest.describe(f"{written.events / 1e6:.2f} M events", measured), flush=True)
        file.unlink()
    return summary(runs)


def summary(runs: dict[int, list[Measured]]) -> dict:
    """Medians by number of events, how they grow, and where that leads for all of OTTO's events."""
    events = np.array(list(runs))
    cpu = _medians(runs, "cpu")
    wall = _medians(runs, "wall")
    peak = _medians(runs, "peak")
    exponent = np.polyfit(np.log(events), np.log(cpu), 1)[0]
    return {
        "events": events.tolist(),
        "cpu_seconds": cpu.round(2).tolist(),
        "wall_seconds": wall.round(2).tolist(),
        "peak_mb": peak.round().tolist(),
        "cpu_seconds_per_million_events": round(_slope(events, cpu) * 1e6, 3),
        "peak_mb_per_million_events": round(_slope(events, peak) * 1e6, 3),
        "exponent": round(float(exponent), 3),
        "full_otto_events": FULL_EVENTS,
        "full_otto_cpu_seconds_extrapolated": _extrapolate(events, cpu),
        "full_otto_wall_seconds_extrapolated": _extrapolate(events, wall),
        "full_otto_peak_mb_extrapolated": _extrapolate(events, peak),
    }


def _medians(runs: dict[int, list[Measured]], field: str) -> np.ndarray:
    """Median of a field for each number of events."""
    by_events = {str(events): repeats for events, repeats in runs.items()}
    return np.array(list(ingest.medians(by_events, field).values()))


def _slope(events: np.ndarray, values: np.ndarray) -> float:
    """Slope between the largest two sizes.

    The smaller ones do not lie on a line: start-up, and memory that is not yet needed.
    """
    return float((values[-1] - values[-2]) / (events[-1] - events[-2]))


def _extrapolate(events: np.ndarray, values: np.ndarray) -> int:
    """The value for all of OTTO's events."""
    return round(float(values[-1] + _slope(events, values) * (FULL_EVENTS - events[-1])))


def main() -> None:
    """Measure, and print the result."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scale", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument(
        "more", type=float, nargs="*", help="further sizes in million events, such as 100"
    )
    sizes = sorted({*SIZES, *parser.parse_args().more})
    with ingest.workplace(round(sizes[-1] * 1e6 / EVENTS_PER_SESSION)) as work:
        result = run(work, sizes, REPEATS)
    slope = result["cpu_seconds_per_million_events"]
    full = result["full_otto_cpu_seconds_extrapolated"]
    print(
        f"{slope} CPU s for each further million events; "
        f"OTTO's {FULL_EVENTS / 1e6:.1f} M: {full} CPU s (extrapolated)"
    )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
