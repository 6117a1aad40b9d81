"""What does an answer cost: in process, from Triton, the gateway, and `mlflow models serve`?

`python -m benchmarks.serving` trains the recommender, briefly, on a simulated shop with as many
articles as Diginetica. It serves the same file four ways on loopback: onnxruntime in this process,
Triton over gRPC, the gateway over HTTP, and MLflow's model server, which a user might pick instead.
The same sessions are sent, one each, by 1, 4 and 16 clients, each asking again when it is answered.
The contenders take turns, so that all have the same neighbours on the machine; client and servers
share its cores. Each number is the median over the rounds. The last line is JSON, times in ms. The
gateway's deadline is off, so that it does as much as the others. `--perf-analyzer PATH` lets
NVIDIA's own client measure the same Triton afterwards (`pip install tritonclient[grpc]==2.51.0` in
another environment brings one).
"""

import argparse
import asyncio
import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks import servers
from benchmarks.rollback import MODEL, PLAN, QUICK
from benchmarks.servers import Ask
from demo.shop import Plan, simulate
from deployments import stack
from kreislauf.release import releases, triton
from models import spec
from models.spec import Tensors, TrainingContext

CONCURRENCY = (1, 4, 16)
QUESTIONS = 2_000
WARM_UP_CLIENTS = 4

Results = dict[str, dict[int, list[float]]]
"""`{contender: {concurrency: [p50, p99, per second]}}`, times in ms."""


class Questions:
    """Sessions, as tensors for the model and as JSON for the servers."""

    def __init__(self, plan: Plan, params: dict, folder: Path, n: int):
        model_type = spec.load(MODEL)
        rows = simulate(plan)
        context = TrainingContext(folder / "training")
        self.onnx = model_type.train(rows, model_type.Params(**params), context).onnx
        examples = model_type.examples(rows)
        drawn = np.random.default_rng(0).permutation(len(examples))[:n]
        self.inputs = [_row(examples.inputs, number) for number in drawn]
        self.gateway = [json.dumps(request(tensors)).encode() for tensors in self.inputs]
        self.mlflow = [json.dumps(_mlflow_request(tensors)).encode() for tensors in self.inputs]


def _row(tensors: Tensors, number: int) -> Tensors:
    """One row of tensors."""
    return {name: values[number : number + 1] for name, values in tensors.items()}


def _mlflow_request(tensors: Tensors) -> dict:
    """A session's JSON, as MLflow's server takes it."""
    return {"inputs": {name: values.tolist() for name, values in tensors.items()}}


def request(tensors: Tensors) -> dict:
    """A session's JSON, as a shop has it."""
    is_event = tensors["article_ids"][0] >= 0
    columns = (tensors[name][0][is_event].tolist() for name in ("article_ids", "types", "times"))
    names = ("clicks", "carts", "orders")
    return {
        "events": [
            {"aid": aid, "type": names[number], "ts": ts}
            for aid, number, ts in zip(*columns, strict=True)
        ]
    }


async def load(ask: Ask, n: int, concurrency: int, seconds: float) -> tuple[float, float, float]:
    """p50 and p99 in ms, and requests per second, of clients that ask without pause."""
    latencies: list[float] = []
    end = time.perf_counter() + seconds

    async def client(first: int) -> None:
        number = first
        began = time.perf_counter()
        while began < end:
            await ask(number % n)
            latencies.append(time.perf_counter() - began)
            number += concurrency
            began = time.perf_counter()

    began = time.perf_counter()
    await asyncio.gather(*(client(first) for first in range(concurrency)))
    p50, p99 = np.percentile(latencies, (50, 99)) * 1000
    return float(p50), float(p99), len(latencies) / (time.perf_counter() - began)


async def compare(
    questions: Questions, running: dict, mlflow: str, rounds: int, seconds: float
) -> Results:
    """Measure all contenders in turns, with each number of clients."""
    n = len(questions.inputs)
    url = f"{running['gateway']['url']}/v1/{MODEL}/predict"
    async with (
        servers.in_process(questions.onnx, questions.inputs, max(CONCURRENCY)) as ort,
        servers.from_triton(running["triton"]["grpc"], questions.inputs) as grpc,
        servers.over_http(url, questions.gateway, b'"variant":"champion"') as gateway,
        servers.over_http(mlflow, questions.mlflow, b'"answers"') as mlflow_serve,
    ):
        contenders = {"ort": ort, "triton": grpc, "gateway": gateway, "mlflow_serve": mlflow_serve}
        for ask in contenders.values():
            await load(ask, n, WARM_UP_CLIENTS, seconds)
        results: Results = {name: {} for name in contenders}
        for concurrency in CONCURRENCY:
            turns: dict[str, list[tuple]] = {name: [] for name in contenders}
            for _ in range(rounds):
                for name, ask in contenders.items():
                    turns[name].append(await load(ask, n, concurrency, seconds))
            for name in contenders:
                medians = np.median(turns[name], axis=0).tolist()
                results[name][concurrency] = medians
                p50, p99, rate = medians
                print(
                    f"{concurrency:3d}  {name:12} p50 {p50:7.2f}  p99 {p99:7.2f}  {rate:6.0f}/s",
                    flush=True,
                )
    return results


def measure(
    plan: Plan, params: dict, rounds: int, seconds: float, home: Path, nvidia: Path | None = None
) -> dict[str, float]:
    """Train, serve, ask, and stop the servers; everything is in `home`."""
    questions = Questions(plan, params, home, QUESTIONS)
    os.environ |= {"KREISLAUF_HOME": str(home), "KREISLAUF_DEADLINE_MS": "60000"}
    try:
        running = stack.up(home, ("triton",))
        triton.add_version(MODEL, 1, questions.onnx)
        triton.serve(MODEL, [1])
        releases.append(MODEL, 1, "a benchmark", "a benchmark", after=None)
        running = stack.up(home, ("triton", "gateway"))
        with servers.mlflow_server(questions.onnx, home) as mlflow:
            results = asyncio.run(compare(questions, running, mlflow, rounds, seconds))
        if nvidia:
            grpc = running["triton"]["grpc"]
            results["perf_analyzer"] = servers.perf_analyzer(
                nvidia, grpc, questions.inputs, home, CONCURRENCY
            )
    finally:
        stack.down(home)
    return summarise(results) | {"size_mb": questions.onnx.stat().st_size / 1e6}


def summarise(results: Results) -> dict[str, float]:
    """Differences between the contenders, then all medians."""
    single = {name: result[CONCURRENCY[0]] for name, result in results.items()}
    busy = {name: result[CONCURRENCY[-1]] for name, result in results.items()}
    numbers = {
        "triton_minus_ort_p50_ms": single["triton"][0] - single["ort"][0],
        "gateway_minus_triton_p50_ms": single["gateway"][0] - single["triton"][0],
        "gateway_minus_triton_p99_ms": single["gateway"][1] - single["triton"][1],
        "gateway_over_mlflow_serve": busy["gateway"][2] / busy["mlflow_serve"][2],
    }
    for name, result in results.items():
        for concurrency, (p50, p99, rate) in result.items():
            numbers[f"{name}_{concurrency}_p50"] = p50
            numbers[f"{name}_{concurrency}_p99"] = p99
            numbers[f"{name}_{concurrency}_per_second"] = rate
    return {name: round(value, 2) for name, value in numbers.items()}


def main() -> None:
    """Measure, and print the result."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=3, help="of each contender in a round")
    parser.add_argument(
        "--perf-analyzer", type=Path, help="NVIDIA's client, to ask the same Triton"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(
            PLAN,
            QUICK,
            arguments.rounds,
            arguments.seconds,
            Path(folder),
            arguments.perf_analyzer,
        )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
