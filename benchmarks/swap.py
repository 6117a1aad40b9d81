"""Does anyone notice when versions are swapped under load, or when a broken one is published?

`python -m benchmarks.swap` starts Prefect, MLflow, Triton and the gateway, trains two recommenders,
briefly, on a simulated shop and on half of it, and publishes them in turn, each time as a new
version, while clients ask the gateway without pause. Every sixth version is broken: Triton cannot
load it, or it answers otherwise than was registered; publish has to refuse it. A request fails if
it is not answered with 200; fallbacks, after the gateway's deadline, are counted apart. An answer
is unapproved if its version never was in the release log, or if it is not what this version's file
answers. The last line is JSON.
"""

import argparse
import json
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import polars as pl

from benchmarks.crowd import Crowd, Response
from benchmarks.rollback import MODEL, PLAN, QUICK
from benchmarks.serving import request
from demo.shop import Plan, simulate
from deployments import stack
from kreislauf.evaluation import scoring
from models import spec
from models.spec import Tensors, TrainingContext, TrainingResult

QUESTIONS = 200
"""Number of different requests."""


class Shelf:
    """Registers versions of two trainings, whole or broken."""

    def __init__(self, plan: Plan, params: dict, folder: Path):
        self.model_type = spec.load(MODEL)
        self.folder = folder
        self.rows = simulate(plan)
        self.params = self.model_type.Params(**params)
        half = self.rows.filter(pl.col("session") % 2 == 0)
        self.trained = [self._train(self.rows, 0), self._train(half, 1)]
        examples = self.model_type.examples(self.rows)
        drawn = np.random.default_rng(0).permutation(len(examples))[:QUESTIONS]
        inputs = {name: values[drawn] for name, values in examples.inputs.items()}
        self.questions = []
        for i in range(len(drawn)):
            question = {name: values[i : i + 1] for name, values in inputs.items()}
            self.questions.append(request(question))
        self.answers = [self._answers(trained.onnx, inputs) for trained in self.trained]
        same = sum(first == second for first, second in zip(*self.answers, strict=True))
        if same > len(drawn) / 2:
            raise RuntimeError(
                f"{same} of {len(drawn)} answers are the same in both trainings: they cannot be "
                "told apart."
            )

    def _train(self, rows: pl.DataFrame, number: int) -> TrainingResult:
        context = TrainingContext(self.folder / str(number))
        return self.model_type.train(rows, self.params, context)

    def _answers(self, onnx: Path, inputs: Tensors) -> list[list[int]]:
        outputs = scoring.answer(onnx, inputs)
        return [answer["article_ids"] for answer in self.model_type.answers(outputs)]

    def put(self, which: int, number: int, champion: int | None, fault: str = "") -> int:
        """A version with the answers of training `which`, promoted against `champion`; its
        number."""
        from kreislauf import registry
        from kreislauf.evaluation import gate
        from kreislauf.registry import claims
        from kreislauf.release import golden

        right = self.trained[which]
        answering = right
        registered = right
        if fault == "answers":
            answering = self.trained[1 - which]
        if fault == "unloadable":
            registered = replace(right, onnx=self.unloadable(right))
        path = self.folder / "golden.json"
        files = {
            "golden": golden.write_golden(self.model_type, self.rows, answering.onnx, path),
            "weights": right.weights,
            "baseline": right.onnx,
        }
        lineage = registry.Lineage(
            key=f"{number}",
            table="events",
            table_version=0,
            digest="0" * 64,
            parent=champion,
            start=0,
            holdout=number,
            watermark=number,
        )
        with claims.held(MODEL, lineage) as claim:
            version = registry.register(claim, registered, self.params, files)
        decision = gate.Decision(
            outcome="promote", reasons=["A benchmark."], metric="", champion_version=champion
        )
        return registry.record_decision(version, decision).number

    def unloadable(self, trained: TrainingResult) -> Path:
        """The same graph with an operator that no runtime knows."""
        model = onnx.load(trained.onnx)
        model.graph.node[-1].op_type = "NoSuchOperator"
        path = self.folder / "unloadable.onnx"
        onnx.save(model, path)
        return path


def measure(plan: Plan, params: dict, swaps: int, broken: int, home: Path, url: str) -> dict:
    """All of it; the environment says where the servers are."""
    from flows.publish import publish
    from kreislauf.release import permission, releases, triton

    shelf = Shelf(plan, params, home)
    champion = publish(MODEL, shelf.put(0, 1, None)).champion
    files = {champion: 0}
    refused = 0
    # The gateway looks into the release log twice a second.
    time.sleep(2)
    with Crowd(url, shelf.questions) as crowd:
        for number in range(2, swaps + broken + 2):
            turn, rest = divmod(number, swaps // broken + 1)
            fault = "" if rest else ("answers", "unloadable")[turn % 2]
            which = 1 - files[champion]
            version = shelf.put(which, number, champion, fault)
            try:
                publish(MODEL, version)
            except (permission.PublishRefused, triton.TritonError) as error:
                if not fault:
                    raise
                refused += 1
                print(f"version {version} is refused: {str(error)[:120]}", flush=True)
                continue
            if fault:
                raise RuntimeError(f"Version {version} is live, although it is broken ({fault}).")
            champion = version
            files[version] = which
            print(f"version {version} is live", flush=True)
        time.sleep(2)
    return summary(
        crowd.responses, shelf, files, [r.champion for r in releases.history(MODEL)], refused
    )


def summary(
    responses: list[Response], shelf: Shelf, files: dict[int, int], live: list[int], refused: int
) -> dict:
    """What the JSON line has."""
    failed = [response for response in responses if response.status != 200]
    fallbacks = 0
    versions = set()
    unapproved = []
    for response in responses:
        if response.status != 200:
            continue
        if response.body["variant"] == "fallback":
            fallbacks += 1
            continue
        version = response.body["version"]
        versions.add(version)
        articles = response.body["answer"]["article_ids"]
        if version not in live or articles != shelf.answers[files[version]][response.question]:
            unapproved.append(response)
    for response in [*failed, *unapproved][:5]:
        print(f"question {response.question}: {response.status} {str(response.body)[:300]}")
    return {
        "swaps": len(live) - 1,
        "broken": refused,
        "requests": len(responses),
        "failed_requests": len(failed),
        "fallbacks": fallbacks,
        "unapproved_answers": len(unapproved),
        "versions_seen": len(versions),
    }


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.swap", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--swaps", type=int, default=50)
    parser.add_argument("--broken", type=int, default=10)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        try:
            running = stack.up(home, ("prefect", "mlflow", "triton", "gateway"))
            os.environ |= stack.client_env(home, running) | {"PREFECT_LOGGING_LEVEL": "WARNING"}
            url = f"{running['gateway']['url']}/v1/{MODEL}/predict"
            plan = replace(PLAN, articles=5_000, sessions_per_day=500)
            result = measure(plan, QUICK, arguments.swaps, arguments.broken, home, url)
            print(json.dumps(result))
        finally:
            stack.down(home)


if __name__ == "__main__":
    main()
