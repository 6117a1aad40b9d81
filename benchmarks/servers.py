"""Ways to ask one ONNX file: in process, from Triton, over HTTP, and by NVIDIA's own client."""

import asyncio
import contextlib
import csv
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import aiohttp

from benchmarks.rollback import MODEL
from deployments import processes
from kreislauf.evaluation import scoring
from models.spec import Tensors
from serving.ask import Triton

Ask = Callable[[int], Awaitable[None]]
"""Asks the question of this number and reads the answer; raises if it is none."""


@contextlib.asynccontextmanager
async def in_process(onnx: Path, inputs: list[Tensors], clients: int) -> AsyncIterator[Ask]:
    """onnxruntime in this process, on one thread for each client."""
    session = scoring.one_thread(onnx)
    with ThreadPoolExecutor(clients) as pool:
        loop = asyncio.get_running_loop()

        async def ask(number: int) -> None:
            await loop.run_in_executor(pool, session.run, None, inputs[number])

        yield ask


@contextlib.asynccontextmanager
async def from_triton(url: str, inputs: list[Tensors]) -> AsyncIterator[Ask]:
    """Triton over gRPC, with the gateway's own client."""
    client = Triton(url)

    async def ask(number: int) -> None:
        await client.ask(MODEL, 1, inputs[number], seconds=60)

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


@contextlib.contextmanager
def mlflow_server(onnx: Path, home: Path) -> Iterator[str]:
    """Address of `mlflow models serve` with this file, and one worker, as it is by default."""
    import mlflow
    import onnx as onnx_format

    model = home / "mlflow-model"
    mlflow.onnx.save_model(
        onnx_format.load(onnx), model, pip_requirements=["onnxruntime"], save_as_external_data=False
    )
    port = processes.free_port()
    programs = Path(sys.executable).parent
    command: list[str | Path] = [programs / "mlflow", "models", "serve", "-m", model]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    # MLflow starts uvicorn by its name.
    env = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
    record = processes.spawn("mlflow-serve", command, home, env)
    try:
        processes.wait(record, f"http://127.0.0.1:{port}/health", 120)
        yield f"http://127.0.0.1:{port}/invocations"
    finally:
        processes.stop(record)


def perf_analyzer(
    program: Path, url: str, inputs: list[Tensors], folder: Path, concurrencies: Sequence[int]
) -> dict[int, list[float]]:
    """`{concurrency: [p50, p99, per second]}` of Triton alone, as NVIDIA's client measures it.

    Raises RuntimeError if it measured nothing.
    """
    questions = folder / "questions.json"
    rows = [_as_lists(tensors) for tensors in inputs]
    questions.write_text(json.dumps({"data": rows}))
    results = {}
    for concurrency in concurrencies:
        table = folder / f"perf-{concurrency}.csv"
        command = [program, "-m", MODEL, "-x", "1", "-u", url, "-i", "grpc"]
        command += ["--input-data", questions, "-f", table, "--concurrency-range", concurrency]
        command += ["--measurement-interval", 3000, "-s", 50, "-r", 10]
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
        # Its exit status is no sign: it has ended with 0 and without a table.
        if not table.exists():
            raise RuntimeError(f"perf_analyzer measured nothing:\n{done.stdout}{done.stderr}")
        (row,) = csv.DictReader(table.open())
        p50, p99 = (float(row[f"{quantile} latency"]) / 1000 for quantile in ("p50", "p99"))
        results[concurrency] = [p50, p99, float(row["Inferences/Second"])]
        print(f"{concurrency:3d}  perf_analyzer p50 {p50:6.2f}", flush=True)
    return results


def _as_lists(tensors: Tensors) -> dict[str, list]:
    """Tensors as JSON has them."""
    return {name: values.ravel().tolist() for name, values in tensors.items()}
