"""What does a batch cost beside onnxruntime alone, and what is lost when it is killed?

`python -m benchmarks.batch` starts Prefect and MLflow, trains the recommender, briefly, on a
simulated shop with as many articles as Diginetica, so that the file is as large as a real one, and
answers all of its sessions in shards of SHARD_SECONDS at most, half of what production has. In
turn, REPEATS times: onnxruntime alone, on one thread, over the same requests in memory, in batches
that are made in the same way, but of all requests; the same on two threads, each over a half; the
flow `score` with one worker; with two, which are threads; with two processes; and with two
processes of Ray and of Dask, where `prefect-ray` and `prefect-dask` are installed. Then a run with
one worker is killed in the middle, and run again. The last line is JSON.

- `over_onnxruntime`: requests per second of one worker, as a share of onnxruntime's. The flow's
  time is that from call to return: planning, reading, writing and the commit are in it.
- `two_workers`: requests per second of two workers, as a multiple of one's.
- `two_processes`, `ray`, `dask`: the same of two processes, whose start and end are in the time.
- `onnxruntime_two_threads`: the same of onnxruntime alone on two threads, each with a half.
- `shards_lost`: shards of the killed run that were begun, and are answered again.

Each ratio is the median of those of the repetitions.
"""

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks import rollback
from benchmarks.rollback import MODEL, QUICK
from demo import raw_files
from demo.shop import Plan, simulate
from deployments import stack

SHARD_SECONDS = 30.0
PLAN = replace(rollback.PLAN, sessions_per_day=12_000)
REPEATS = 3
KILLED_AT = 2
"""Shards that are answered when the run is killed in the next one."""


def prepare(plan: Plan, params: dict, folder: Path) -> None:
    """Load the shop's sessions, and train version 1."""
    from flows.ingest import ingest
    from flows.train import train

    ingest(str(raw_files.write(simulate(plan), folder / "sessions.jsonl")), MODEL)
    train(MODEL, params)


def compare(shop: Plan, repeats: int) -> dict[str, Any]:
    """Ask in each way, and compare the requests per second."""
    from prefect.task_runners import ProcessPoolTaskRunner, ThreadPoolTaskRunner

    from kreislauf import lake, registry
    from kreislauf.evaluation import scoring
    from models import spec

    model_type = spec.load(MODEL)
    names, inputs = model_type.requests(lake.read(model_type.table))
    session = scoring.one_thread(registry.onnx_file(registry.get(MODEL, 1)))
    runners: dict[str, Callable[[], Any]] = {
        "one worker": one_worker,
        "two workers": partial(ThreadPoolTaskRunner, max_workers=2),
        "two processes": partial(ProcessPoolTaskRunner, max_workers=2),
    }
    clusters = {name: new for name, new in CLUSTERS.items() if find_spec(f"prefect_{name}")}
    runners |= clusters
    ways: dict[str, Callable[[], Any]] = {
        "onnxruntime": partial(ask, session, inputs),
        "on two threads": partial(ask_halves, session, inputs),
        **{way: partial(run_flow, shop, runner) for way, runner in runners.items()},
    }
    rates: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(repeats):
        for way, call in ways.items():
            forget_answers()
            began = time.perf_counter()
            call()
            rates[way].append(len(names) / (time.perf_counter() - began))
            print(f"{way:14} {rates[way][-1]:9.0f} requests per second", flush=True)

    def ratio(way: str, base: str) -> float:
        pairs = zip(rates[way], rates[base], strict=True)
        return statistics.median(rate / of_base for rate, of_base in pairs)

    return {
        "requests": len(names),
        "over_onnxruntime": ratio("one worker", "onnxruntime"),
        "two_workers": ratio("two workers", "one worker"),
        "two_processes": ratio("two processes", "one worker"),
        **{name: ratio(name, "one worker") for name in clusters},
        "onnxruntime_two_threads": ratio("on two threads", "onnxruntime"),
        "onnxruntime_per_second": statistics.median(rates["onnxruntime"]),
    }


def ask(session: Any, inputs: dict[str, Any]) -> None:
    """Let onnxruntime answer everything from memory."""
    from kreislauf.evaluation import scoring
    from models.spec import MAX_BATCH

    scoring.answer(session, inputs, MAX_BATCH)


def ask_halves(session: Any, inputs: dict[str, Any]) -> None:
    """The same on two threads."""
    middle = len(next(iter(inputs.values()))) // 2
    parts = (slice(middle), slice(middle, None))
    halves = [{name: values[part] for name, values in inputs.items()} for part in parts]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(ask, (session, session), halves))


def run_flow(shop: Plan, runner: Callable[[], Any]) -> Any:
    """Score all sessions of the shop, the shards by a new task runner."""
    from datetime import UTC, datetime, timedelta

    from flows.score import score
    from kreislauf import lake
    from kreislauf.batch import plan
    from models import spec

    plan.SHARD_SECONDS = SHARD_SECONDS
    newest = lake.watermark(spec.load(MODEL).table)
    assert newest is not None
    end = datetime.fromtimestamp(newest / 1000, UTC) + timedelta(days=1)
    start = end - timedelta(days=shop.days + 2)
    return score.with_options(task_runner=runner())(MODEL, start, end, version=1)


def one_worker() -> Any:
    """Shards one after another."""
    from prefect.task_runners import ThreadPoolTaskRunner

    return ThreadPoolTaskRunner(max_workers=1)


def local_ray() -> Any:
    """A task runner with two processes of Ray on this machine."""
    from prefect_ray import RayTaskRunner

    return RayTaskRunner(init_kwargs={"num_cpus": 2, "include_dashboard": False})


def local_dask() -> Any:
    """A task runner with two processes of Dask on this machine."""
    from prefect_dask import DaskTaskRunner

    return DaskTaskRunner(cluster_kwargs={"n_workers": 2, "threads_per_worker": 1})


CLUSTERS: dict[str, Callable[[], Any]] = {"ray": local_ray, "dask": local_dask}


def forget_answers() -> None:
    """Delete the table of answers."""
    from kreislauf.batch.answers import ANSWERS
    from kreislauf.lake import storage

    shutil.rmtree(storage.uri(ANSWERS), ignore_errors=True)


def kill_and_repeat(shop: Plan, folder: Path) -> dict[str, int]:
    """Kill a run in the middle, run it again, and count."""
    forget_answers()
    log = folder / "shards.log"
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.batch", "--doomed", str(log)]
    killed = subprocess.run(command, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.returncode
    started_shards = len(log.read_text().split())
    report = run_flow(shop, one_worker)
    answered_before = report.batch.shards - report.shards_answered
    assert report.answered == report.batch.units
    return {
        "shards": report.batch.shards,
        "shards_begun": started_shards,
        "shards_lost": started_shards - answered_before,
    }


def die(shop: Plan, log: Path) -> None:
    """Score with one worker, note each shard that is begun, and be killed while one is answered."""
    from kreislauf.batch import answers, shards

    write = shards.write
    rows = answers.rows
    started_shards: list[int] = []

    def write_and_log(batch: Any, number: int) -> int:
        started_shards.append(number)
        log.write_text(" ".join(map(str, started_shards)))
        return write(batch, number)

    def deadly(*arguments: Any) -> Any:
        if len(started_shards) > KILLED_AT:
            os.kill(os.getpid(), signal.SIGKILL)
        return rows(*arguments)

    shards.write = write_and_log
    setattr(answers, "rows", deadly)  # noqa: B010
    run_flow(shop, one_worker)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.batch", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--doomed", type=Path, help=argparse.SUPPRESS)
    doomed = parser.parse_args().doomed
    if doomed:
        die(PLAN, doomed)
        return
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        try:
            os.environ |= stack.client_env(home, stack.up(home, ("prefect", "mlflow")))
            prepare(PLAN, QUICK, home)
            result = compare(PLAN, REPEATS) | kill_and_repeat(PLAN, home)
        finally:
            stack.down(home)
    rounded = {name: round(value, 3) for name, value in result.items()}
    print(json.dumps(rounded))


if __name__ == "__main__":
    main()
