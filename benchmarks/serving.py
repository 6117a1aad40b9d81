"""What does an answer cost: in process, from Triton, from the gateway, and from `mlflow models
serve`?

`python -m benchmarks.serving` trains the recommender, briefly, on a simulated shop with as many
articles as Diginetica and serves the same file four ways on loopback: onnxruntime in this process,
Triton over gRPC, the gateway over HTTP, and MLflow's model server, which a user might pick instead.
The same sessions are sent, one each, by 1, 4 and 16 clients, each asking again when it is answered.
The contenders take turns, so that all have the same neighbours on the machine; client and servers
share its cores. Each number is the median over the rounds. The last line is JSON, times in ms. The
gateway's deadline is off, so that it does what the others do. `--perf-analyzer PATH` lets NVIDIA's
own client measure the same Triton afterwards (`pip install tritonclient[grpc]==2.51.0` in another
environment brings one).
"""

import argparse
import asyncio
import contextlib
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import aiohttp
import numpy as np

from benchmarks.rollback import MODEL, PLAN, QUICK
from demo.shop import Plan, simulate
from deployments import processes, stack
from kreislauf.evaluation import scoring
from kreislauf.release import releases, triton
from models import spec
from models.spec import Tensors, TrainingContext
from serving.ask import Triton

CONCURRENCY = (1, 4, 16)
Ask = Callable[[int], Awaitable[None]]
"""Asks the question of this number and reads the answer; raises if it is none."""


class Questions:
    """Sessions, as tensors for the model and as JSON for the servers."""

    def __init__(self, plan: Plan, params: dict, folder: Path, n: int):
        kind = spec.load(MODEL)
        rows = simulate(plan)
        self.onnx = kind.train(
            rows, kind.Params(**params), TrainingContext(folder / "training")
        ).onnx
        examples = kind.examples(rows)
        drawn = np.random.default_rng(0).permutation(len(examples))[:n]
        self.inputs = [
            {name: values[i : i + 1] for name, values in examples.inputs.items()} for i in drawn
        ]
        self.gateway = [json.dumps(request(tensors)).encode() for tensors in self.inputs]
        self.mlflow = [
            json.dumps({"inputs": {k: v.tolist() for k, v in i.items()}}).encode()
            for i in self.inputs
        ]


def request(tensors: Tensors) -> dict:
    """A session's JSON, as a shop has it."""
    known = tensors["article_ids"][0] >= 0
    columns = (tensors[name][0][known].tolist() for name in ("article_ids", "types", "times"))
    types = ("clicks", "carts", "orders")
    return {
        "events": [
            {"aid": aid, "type": types[kind], "ts": ts}
            for aid, kind, ts in zip(*columns, strict=True)
        ]
    }


@contextlib.asynccontextmanager
async def in_process(asked: Questions) -> AsyncIterator[Ask]:
    """onnxruntime on one thread for each client."""
    session = scoring.one_thread(asked.onnx)
    with ThreadPoolExecutor(max(CONCURRENCY)) as pool:
        loop = asyncio.get_running_loop()

        async def ask(number: int) -> None:
            await loop.run_in_executor(pool, session.run, None, asked.inputs[number])

        yield ask


@contextlib.asynccontextmanager
async def from_triton(asked: Questions, url: str) -> AsyncIterator[Ask]:
    """Over gRPC, with the gateway's own client."""
    client = Triton(url)

    async def ask(number: int) -> None:
        await client.ask(MODEL, 1, asked.inputs[number], seconds=60)

    yield ask
    await client.close()


@contextlib.asynccontextmanager
async def over_http(url: str, bodies: list[bytes], marker: bytes) -> AsyncIterator[Ask]:
    """A server that takes JSON; an answer without `marker` is none."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(
        connector=connector, headers={"Content-Type": "application/json"}
    ) as session:

        async def ask(number: int) -> None:
            async with session.post(url, data=bodies[number]) as response:
                body = await response.read()
                if response.status != 200 or marker not in body:
                    raise RuntimeError(f"{url} answered {response.status}: {body[:300]!r}")

        yield ask


async def load(ask: Ask, n: int, concurrency: int, seconds: float) -> tuple[float, float, float]:
    """p50 and p99 in ms, and requests per second, of so many clients that ask without pause."""
    took: list[float] = []
    end = time.perf_counter() + seconds

    async def client(first: int) -> None:
        number = first
        while (began := time.perf_counter()) < end:
            await ask(number % n)
            took.append(time.perf_counter() - began)
            number += concurrency

    began = time.perf_counter()
    await asyncio.gather(*(client(first) for first in range(concurrency)))
    p50, p99 = np.percentile(took, (50, 99)) * 1000
    return float(p50), float(p99), len(took) / (time.perf_counter() - began)


async def compare(
    asked: Questions, running: dict, mlflow: str, rounds: int, seconds: float
) -> dict[str, dict]:
    """`{contender: {concurrency: [p50, p99, per second]}}`."""
    n = len(asked.inputs)
    gateway = f"{running['gateway']['url']}/v1/{MODEL}/predict"
    async with (
        in_process(asked) as ort,
        from_triton(asked, running["triton"]["grpc"]) as grpc,
        over_http(gateway, asked.gateway, b'"variant":"champion"') as http,
        over_http(mlflow, asked.mlflow, b'"answers"') as served,
    ):
        contenders = {"ort": ort, "triton": grpc, "gateway": http, "mlflow_serve": served}
        for ask in contenders.values():
            await load(ask, n, 4, seconds)
        found: dict[str, dict] = {name: {} for name in contenders}
        for concurrency in CONCURRENCY:
            turns = [
                {name: await load(ask, n, concurrency, seconds) for name, ask in contenders.items()}
                for _ in range(rounds)
            ]
            for name in contenders:
                found[name][concurrency] = np.median(
                    [turn[name] for turn in turns], axis=0
                ).tolist()
                p50, p99, rate = found[name][concurrency]
                print(
                    f"{concurrency:3d}  {name:12} p50 {p50:7.2f}  p99 {p99:7.2f}  {rate:6.0f}/s",
                    flush=True,
                )
    return found


@contextlib.contextmanager
def mlflow_server(onnx: Path, home: Path):
    """Address of `mlflow models serve` with the same file, one worker, as it is by default."""
    import mlflow
    import onnx as onnx_format

    model = home / "mlflow-model"
    mlflow.onnx.save_model(
        onnx_format.load(onnx), model, pip_requirements=["onnxruntime"], save_as_external_data=False
    )
    port = processes.free_port()
    command: list[str | Path] = [
        Path(sys.executable).parent / "mlflow", "models", "serve", "-m", model, "--env-manager", "local", "--host",
        "127.0.0.1", "--port", str(port),
    ]  # fmt: skip
    # It starts uvicorn by its name.
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    record = processes.spawn("mlflow-serve", command, home, env)
    try:
        processes.wait(record, f"http://127.0.0.1:{port}/health", 120)
        yield f"http://127.0.0.1:{port}/invocations"
    finally:
        processes.stop(record)


def perf_analyzer(
    program: Path, url: str, asked: Questions, folder: Path
) -> dict[int, list[float]]:
    """`{concurrency: [p50, p99, per second]}` of Triton alone, as NVIDIA's client sees it. Raises
    RuntimeError."""
    told = folder / "questions.json"
    rows = [
        {name: values.ravel().tolist() for name, values in tensors.items()}
        for tensors in asked.inputs
    ]
    told.write_text(json.dumps({"data": rows}))
    found = {}
    for concurrency in CONCURRENCY:
        table = folder / f"perf-{concurrency}.csv"
        command = [
            program, "-m", MODEL, "-x", "1", "-u", url, "-i", "grpc", "--input-data", told, "-f", table,
            "--concurrency-range", concurrency, "--measurement-interval", 3000, "-s", 50, "-r", 10,
        ]  # fmt: skip
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
        # It has ended with 0 and without a table.
        if not table.exists():
            raise RuntimeError(f"perf_analyzer measured nothing:\n{done.stdout}{done.stderr}")
        (row,) = csv.DictReader(table.open())
        found[concurrency] = [float(row[f"{p} latency"]) / 1000 for p in ("p50", "p99")]
        found[concurrency].append(float(row["Inferences/Second"]))
        print(f"{concurrency:3d}  perf_analyzer p50 {found[concurrency][0]:6.2f}", flush=True)
    return found


def measure(
    plan: Plan, params: dict, rounds: int, seconds: float, home: Path, nvidia: Path | None = None
) -> dict[str, float]:
    """All of it, in `home`."""
    asked = Questions(plan, params, home, 2_000)
    os.environ |= {"KREISLAUF_HOME": str(home), "KREISLAUF_DEADLINE_MS": "60000"}
    try:
        running = stack.up(home, ("triton",))
        triton.add_version(MODEL, 1, asked.onnx)
        triton.serve(MODEL, [1])
        releases.append(MODEL, 1, "a benchmark", "a benchmark", after=None)
        running = stack.up(home, ("triton", "gateway"))
        with mlflow_server(asked.onnx, home) as mlflow:
            found = asyncio.run(compare(asked, running, mlflow, rounds, seconds))
        if nvidia:
            found["perf_analyzer"] = perf_analyzer(nvidia, running["triton"]["grpc"], asked, home)
    finally:
        stack.down(home)
    first, busy = (
        {name: result[c] for name, result in found.items()}
        for c in (CONCURRENCY[0], CONCURRENCY[-1])
    )
    numbers = {
        "triton_minus_ort_p50_ms": first["triton"][0] - first["ort"][0],
        "gateway_minus_triton_p50_ms": first["gateway"][0] - first["triton"][0],
        "gateway_minus_triton_p99_ms": first["gateway"][1] - first["triton"][1],
        "gateway_over_mlflow_serve": busy["gateway"][2] / busy["mlflow_serve"][2],
    }
    for name, result in found.items():
        for concurrency, (p50, p99, rate) in result.items():
            numbers |= {f"{name}_{concurrency}_p50": p50, f"{name}_{concurrency}_p99": p99}
            numbers[f"{name}_{concurrency}_per_second"] = rate
    return {name: round(value, 2) for name, value in numbers.items()} | {
        "size_mb": asked.onnx.stat().st_size / 1e6
    }


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=3, help="of each contender in a round")
    parser.add_argument(
        "--perf-analyzer", type=Path, help="NVIDIA's client, to ask the same Triton"
    )
    told = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(
            json.dumps(
                measure(PLAN, QUICK, told.rounds, told.seconds, Path(folder), told.perf_analyzer)
            )
        )


if __name__ == "__main__":
    main()
