"""What does a monitor run cost, and how does that grow with the window?

`python -m benchmarks.monitor_cost` loads windows of SIZES million events, in OTTO's format and with
its catalogue of 1.9 M articles, into a lake, and measures in a fresh process each, REPEATS times: a
plain Polars scan of all columns of the table; what the monitor does with every event
(kreislauf/monitoring/window.py); Evidently's preset on the full frame. Then, once, what does not
grow because it works on a sample: the imports, the questions and baselines, and Evidently's report.
CPU seconds are those of the call alone, medians; peaks are of the whole process. The last line is
JSON; `cpu_over_scan` is the slope of ours from the smallest to the largest window over the scan's.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from benchmarks.otto import ARTICLES, DAYS, EVENTS_PER_SESSION, START, generate
from kreislauf.clock import DAY_MS

if TYPE_CHECKING:
    from kreislauf.monitoring.probe import Probe
    from kreislauf.monitoring.window import Window

SIZES = (1, 3, 10)
REPEATS = 3
"""Million events; runs of each."""
EVIDENTLY_SIZES = (1, 3)
WINDOW = START, START + DAYS * DAY_MS - 1


def profile() -> pl.DataFrame:
    """What a version knows that has learnt from all of OTTO's articles."""
    seen = np.random.default_rng(0).integers(1, 400, ARTICLES)
    return pl.DataFrame({"aid": np.arange(ARTICLES), "ts": np.full(ARTICLES, START), "seen": seen})


def scan() -> Callable[[], object]:
    """Every value of the table, once."""
    from kreislauf import lake
    from models.session_recommender import SPEC

    times = pl.col("session", "aid", "ts").max(), (pl.col("type") == "carts").sum()
    return lambda: lake.scan(SPEC.table).select(*times).collect(engine="streaming")


def ours() -> Callable[[], object]:
    """What the monitor does with every event."""
    from kreislauf.monitoring import inputs
    from kreislauf.monitoring.window import read_window
    from models.session_recommender import SPEC

    rows = inputs.trusted_rows(SPEC)
    articles = profile()
    return lambda: read_window(SPEC, rows, articles, *WINDOW)


def sampled() -> "tuple[Window, Probe]":
    """A window's sample, and a version that learnt from it."""
    from kreislauf.evaluation.intervals import Interval
    from kreislauf.monitoring import inputs
    from kreislauf.monitoring.probe import Probe
    from kreislauf.monitoring.window import read_window
    from models.session_recommender import SPEC

    window = read_window(SPEC, inputs.trusted_rows(SPEC), profile(), *WINDOW)
    onnx = SPEC.baseline(window.sample, Path(os.environ["KREISLAUF_HOME"]))
    learnt = SPEC.training_profile(window.sample.lazy()).collect()
    reference = Interval(mean=0.5, low=0.49, high=0.51)
    return window, Probe(SPEC, onnx, onnx, learnt, window.sample, reference)


def answers() -> Callable[[], object]:
    """Questions to the version and its baseline, three baselines fitted, quality by slice."""
    from benchmarks.window_diagnosis import History, diagnose_sample
    from kreislauf.monitoring import calibration
    from kreislauf.monitoring.probe import REFIT, REFIT_TAIL, TOP_LABEL

    window, probe = sampled()
    quality = (REFIT, REFIT_TAIL, TOP_LABEL, "top_answer", "coverage")
    history = []
    for scale, level in [(0.999, 0.4), (1.0, 0.41)] * 4:
        signals = {name: value * scale for name, value in window.statistics.items()}
        signals |= {name: level for name in quality}
        history.append(signals | {calibration.SAMPLE_SIZE: window.sample.height})
    return lambda: diagnose_sample(probe, window, window.sample, History(history), 0.01)


def report() -> Callable[[], object]:
    """Evidently's report of the sample."""
    from kreislauf.monitoring import drift

    window, probe = sampled()
    monitored = probe.model_type.monitored(window.sample.lazy(), probe.profile).collect()
    path = Path(os.environ["KREISLAUF_HOME"]) / "report.html"
    drift.compare(monitored, monitored, path)  # imports
    return lambda: drift.compare(monitored, monitored, path)


def evidently() -> Callable[[], object]:
    """Evidently's preset on all events, against as many."""
    from evidently import Report
    from evidently.presets import DataDriftPreset

    from kreislauf import lake
    from models.session_recommender import SPEC

    def compare() -> object:
        rows = (
            SPEC.monitored(lake.scan(SPEC.table), profile()).cast(pl.Float64).collect().to_pandas()
        )
        return Report([DataDriftPreset()]).run(rows, rows)

    return compare


CONTENDERS = {part.__name__: part for part in (scan, ours, answers, report, evidently)}


def measure(part: str, home: Path) -> dict:
    """CPU seconds of a part and of its imports, and the peak of its process in MB."""
    env = os.environ | {"KREISLAUF_HOME": str(home), "DO_NOT_TRACK": "true"}
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.monitor_cost", "--part", part]
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure_here(part: str) -> dict:
    """The same, in this process."""
    call = CONTENDERS[part]()
    before = time.process_time()
    call()
    cpu = time.process_time() - before
    # Not ru_maxrss, which a process has from its parent.
    status = Path("/proc/self/status").read_text()
    peak = int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]
    return {"cpu": round(cpu, 3), "start": round(before, 3), "peak_mb": round(peak)}


def load(size: float, home: Path) -> None:
    """A lake with so many million events."""
    from kreislauf import lake, sources
    from models.session_recommender import SPEC

    os.environ["KREISLAUF_HOME"] = str(home)
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw.jsonl"
        generate(raw, round(size * 1e6 / EVENTS_PER_SESSION))
        lake.load_file(SPEC.table, sources.open_file(str(raw), SPEC.table))


def run(
    work: Path, sizes: tuple[float, ...], repeats: int, evidently_sizes: tuple[float, ...]
) -> dict:
    """Measure everything; the dictionary of the JSON line."""
    measured: dict[str, dict[float, dict]] = {part: {} for part in CONTENDERS}
    for size in sizes:
        home = work / str(size)
        load(size, home)
        parts = ["scan", "ours"] + ["evidently"] * (size in evidently_sizes)
        parts += ["answers", "report"] * (size == sizes[0])
        for part in parts:
            runs = [measure(part, home) for _ in range(repeats if part in ("scan", "ours") else 1)]
            measured[part][size] = {name: median(r[name] for r in runs) for name in runs[0]}
            print(f"{size} M events, {part}: {measured[part][size]}", flush=True)
    return summary(measured, sizes)


def summary(measured: dict[str, dict[float, dict]], sizes: tuple[float, ...]) -> dict:
    """The dictionary of the JSON line."""
    small = sizes[0]
    large = sizes[-1]

    def slope(part: str) -> float:
        return (measured[part][large]["cpu"] - measured[part][small]["cpu"]) / (large - small)

    return {
        "cpu_over_scan": round(slope("ours") / slope("scan"), 2),
        "peak_memory_10x_over_1x": round(
            measured["ours"][large]["peak_mb"] / measured["ours"][small]["peak_mb"], 2
        ),
        "cpu_seconds_per_million_events": round(slope("ours"), 4),
        "cpu_seconds": {
            part: {str(s): m["cpu"] for s, m in by.items()} for part, by in measured.items()
        },
        "peak_mb": {
            part: {str(s): m["peak_mb"] for s, m in by.items()} for part, by in measured.items()
        },
        "start_cpu_seconds": measured["ours"][small]["start"],
    }


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.monitor_cost", description=__doc__)
    parser.add_argument(
        "--part",
        choices=CONTENDERS,
        help="measure one in this process; KREISLAUF_HOME has the lake",
    )
    part = parser.parse_args().part
    if part:
        print(json.dumps(measure_here(part)))
        return
    with tempfile.TemporaryDirectory() as work:
        print(json.dumps(run(Path(work), SIZES, REPEATS, EVIDENTLY_SIZES)))


if __name__ == "__main__":
    main()
