"""What does the retraining of each model type take: processor time and memory?

`python -m benchmarks.resources` simulates a shop: nine days of events, and two weeks of judged
searches and of questions. For each model type a process of its own loads them into a temporary
lake. Then it trains, registers and judges a version with the default parameters, as the flows train
and promote do, but without Prefect's server. CPU seconds are those of the retraining and its
children; `peak_mb` is the most memory that the process had. The last line is JSON.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks import contenders, row_reads
from demo.shop import Plan, simulate
from kreislauf import lake
from models import spec

ROOT = Path(__file__).resolve().parent.parent
START = 1_700_000_000_000
"""Time of the first search or question, ms."""
PLAN = Plan(days=9, sessions_per_day=1300, articles=400, change_day=10)
SEARCHES = 4_000
RESULTS = 20
FEATURES = 20
QUESTIONS = 4_000
INTENTS = 50
WORDS = 8
"""Words of a question."""
STEP_MS = 300_000
"""Time between two searches or questions, ms."""


def sessions() -> list[bytes]:
    """Events of a simulated shop."""
    return simulate(PLAN).write_ndjson().encode().splitlines()


def searches() -> list[bytes]:
    """Judged searches: a grade follows the first feature, with noise."""
    rng = np.random.default_rng(1)
    lines = []
    for number in range(SEARCHES):
        features = rng.normal(size=(RESULTS, FEATURES)).round(3)
        grades = (features[:, 0] + rng.normal(size=RESULTS) > 1.5).astype(int)
        results = [
            {"item": f"i{place}", "features": row.tolist(), "grade": int(grade), "position": None}
            for place, (row, grade) in enumerate(zip(features, grades, strict=True))
        ]
        search = {"search": f"s{number}", "query": f"q{number % 500}", "results": results}
        lines.append(json.dumps(search | {"ts": START + number * STEP_MS}).encode())
    return lines


def questions() -> list[bytes]:
    """Questions of which two words are their intent's own."""
    rng = np.random.default_rng(1)
    lines = []
    for number in range(QUESTIONS):
        intent = int(rng.integers(INTENTS))
        words = [f"word{rng.integers(2_000)}" for _ in range(WORDS)]
        text = " ".join([f"about{intent}", *words, f"really{intent}"])
        question = {"question": f"q{number:06}", "text": text, "intent": f"intent{intent}"}
        lines.append(json.dumps(question | {"ts": START + number * STEP_MS}).encode())
    return lines


RAW: dict[str, Callable[[], list[bytes]]] = {
    "session_recommender": sessions,
    "search_ranker": searches,
    "support_answers": questions,
}
"""Raw lines by model type."""


def measure(model: str) -> dict[str, float]:
    """CPU seconds and peak memory (MB of 2^20 bytes) of a retraining in this process, whose home is
    empty."""
    model_type = spec.load(model)
    lake.load_file(model_type.table, row_reads.RawFile(RAW[model]()))
    start = contenders.cpu()
    row_reads.retrain(model_type)
    return {
        "lines": lake.total(lake.history(model_type.table)).lines_in,
        "cpu_seconds": round(contenders.cpu() - start),
        "peak_mb": round(contenders.peak()),
    }


def run(model: str) -> dict[str, float]:
    """`measure` in a process with a home of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.resources", "--measure", model]
        env = os.environ | {"KREISLAUF_HOME": folder, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE, text=True)
        return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.resources")
    parser.add_argument("--measure", choices=sorted(RAW), help=argparse.SUPPRESS)
    model = parser.parse_args().measure
    if model:
        print(json.dumps(measure(model)))
        return
    figures = {}
    for model in RAW:
        figures[model] = run(model)
        print(f"{model}: {figures[model]}", flush=True)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
