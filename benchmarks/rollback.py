"""How long from the call of the flow rollback until the version before has answered its golden
requests and is live?

`python -m benchmarks.rollback` starts Prefect, MLflow and Triton, trains two versions of the
recommender, briefly, on a simulated shop with as many articles as Diginetica, so that the files are
as large as real ones, and makes both live without a gate. Then it rolls back ROUNDS times, to and
fro, as a call from Python whose imports are done. The last line is JSON: seconds from call to
return, median and slowest, and the size of a file in 10^6 bytes.
"""

import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np

from demo import raw_files
from demo.shop import Plan, simulate
from deployments import stack

ROUNDS = 10
"""Number of rollbacks."""
MODEL = "session_recommender"
PLAN = Plan(days=20, sessions_per_day=2000, articles=43_000, change_day=99)
QUICK = {"epochs": 1, "ranker_epochs": 1, "most_compared": 100}
"""Hyperparameters of a brief training."""


def measure(plan: Plan, params: dict, rounds: int, folder: Path) -> dict:
    """All of it; the environment says where the servers are."""
    from flows.ingest import ingest
    from flows.publish import publish
    from flows.rollback import rollback
    from flows.train import train
    from kreislauf import registry
    from kreislauf.evaluation import gate

    ingest(str(raw_files.write(simulate(plan), folder / "sessions.jsonl")), MODEL)
    for champion, seed in ((None, 0), (1, 1)):
        version = train(MODEL, params | {"seed": seed})
        decision = gate.Decision(
            outcome="promote", reasons=["A benchmark."], metric="", champion_version=champion
        )
        publish(MODEL, registry.record_decision(version, decision).number)
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        release = rollback(MODEL, reason="a benchmark")
        seconds.append(time.perf_counter() - began)
        print(f"version {release.champion} is live after {seconds[-1]:.2f} s", flush=True)
    size = registry.onnx_file(registry.get(MODEL, 1)).stat().st_size / 1e6
    return {
        "rollback_seconds": round(float(np.median(seconds)), 2),
        "slowest_seconds": round(max(seconds), 2),
        "size_mb": round(size, 1),
    }


def main() -> None:
    """See the module."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        try:
            os.environ |= stack.client_env(home, stack.up(home, ("prefect", "mlflow", "triton")))
            result = measure(PLAN, QUICK, ROUNDS, home)
        finally:
            stack.down(home)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
