"""Recall@20 and MRR@20 of the recommender on a published test, beside what it has to beat.

`python -m benchmarks.recommender --data FOLDER` trains three seeds on the sessions before the test
and asks each ONNX file for every test prefix, the whole catalogue ranked. Popularity, the
co-visitation table and session kNN answer the same prefixes in the same run. FOLDER has
`sessions.jsonl.gz`, `test_prefixes.parquet` and `meta.json`, which says where the test begins. The
test is used for nothing else. Seeds are trained in processes of one thread, `--parallel` at a time
(default: the cores). So `train_seconds`, the wall time of the slowest, is an upper bound. Nothing
else runs meanwhile.

The first seed's file is also asked with fewer bits (precision.py), with the paired confidence
interval that the gate would use. `--ablation` also trains the variants in ABLATION, with the first
seed, and takes the first seed's model apart. Gains are what the whole model has more; how far the
seeds differ says what they mean. The last line is JSON; in it, size (MB of 10^6 bytes) and latency
(one session, one thread) are the first seed's.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks import ablation, precision, published
from benchmarks.knn import Neighbours
from kreislauf.evaluation import scoring
from kreislauf.evaluation.intervals import interval
from models.session_recommender import SPEC, initial_vectors, metrics
from models.spec import Examples, Tensors, TrainingContext

SEEDS = 3
"""Number of trainings of the whole model."""
RANDOM_START = "vectors start at random"
ABLATION: dict[str, dict] = {
    RANDOM_START: {},
    "encoder does not learn from the newest sessions": {"block_lr": 1e-9},
}
"""Other parameters, by what they show. Variants without a training are in `ablation.components`."""
ROOT = Path(__file__).resolve().parent.parent


def train_apart(data: Path, params: dict, folder: Path, random_start: bool) -> dict:
    """What `train` returns, in a process of its own."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.recommender", "--data", str(data)]
    command += ["--params", json.dumps(params), "--folder", str(folder)]
    if random_start:
        command.append("--random-start")
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise RuntimeError(f"The training with {params} failed: see above.")
    return json.loads(done.stdout.splitlines()[-1])


def train(rows: pl.DataFrame, params: dict, folder: Path, random_start: bool = False) -> dict:
    """Train in `folder`, with progress on standard error.

    Returns the files, the seconds, and the recall on the end of the train sessions, by the chosen
    model and by each that could have been chosen.
    """
    if random_start:
        initial_vectors.propagate = lambda index, drawn: drawn
    last_share = 0.0

    def report(share: float, validation: dict[str, float]) -> None:
        nonlocal last_share
        if share >= last_share + 0.1:
            last_share = share
            seconds = time.perf_counter() - began
            line = f"  {params} {share:4.0%} {seconds:6.0f} s {validation}"
            print(line, file=sys.stderr, flush=True)

    folder.mkdir(parents=True)
    began = time.perf_counter()
    chosen = SPEC.Params.model_validate(params)
    done = SPEC.train(rows, chosen, TrainingContext(folder, report=report))
    numbers: dict[str, float] = {
        "train_seconds": round(time.perf_counter() - began),
        "validation": round(done.validation, 4),
    }
    for name, value in done.metrics.items():
        if name.startswith("validation_"):
            numbers[name] = round(value, 4)
    return {"onnx": str(done.onnx), "weights": str(done.weights), "numbers": numbers}


def measure(training: dict, test: Examples) -> dict:
    """Quality, size and latency of the file that would be served."""
    onnx = Path(training["onnx"])
    result = published.quality(scoring.answer(onnx, test.inputs)["answers"], test)
    size = round(onnx.stat().st_size / 1e6, 1)
    return {**result, **training["numbers"], "size_mb": size, "p50_ms": p50(onnx, test.inputs)}


def p50(onnx: Path, inputs: Tensors) -> float:
    """Median milliseconds of a request with one session, on one thread."""
    return round(float(np.median(scoring.latencies(onnx, inputs))), 2)


def fewer_bits(onnx: Path, test: Examples, folder: Path) -> dict[str, dict]:
    """Numbers of each variant of the file, with its gain of recall@20 and the interval."""
    variants = {}
    recalls = {}
    for name, path in precision.variants(onnx, folder).items():
        answers = scoring.answer(path, test.inputs)["answers"]
        recalls[name] = metrics.recall(answers, test.labels)
        gain = interval(recalls[name] - recalls["float32"], test.groups, SPEC.policy.confidence)
        variants[name] = published.quality(answers, test) | {
            "size_mb": round(path.stat().st_size / 1e6, 1),
            "p50_ms": p50(path, test.inputs),
            "gain": str(gain),
        }
    return variants


def rivals(rows: pl.DataFrame, test: Examples) -> dict[str, dict]:
    """Numbers of popularity, the co-visitation table and session kNN."""
    counts = rows.group_by("aid").len().sort(["len", "aid"], descending=[True, False])
    popular = counts["aid"].head(20).to_numpy()
    with tempfile.TemporaryDirectory() as folder:
        table = scoring.answer(SPEC.baseline(rows, Path(folder)), test.inputs)["answers"]
    knn = Neighbours(rows).answers(test.inputs["article_ids"])
    answers = {"popularity": np.tile(popular, (len(test), 1)), "covisitation": table, "knn": knn}
    return {name: published.quality(values, test) for name, values in answers.items()}


def run(data: Path, folder: Path, params: dict, parallel: int, ablated: bool) -> dict:
    """Run all trainings, with files in `folder`; the dictionary of the JSON line.

    `params` are those that all trainings have.
    """
    variants = [params | {"seed": seed} for seed in range(SEEDS)]
    variants += [params | {"seed": 0} | changed for changed in ABLATION.values() if ablated]
    for variant in variants:
        SPEC.Params.model_validate(variant)
    rows, test = published.load(data)
    baselines = rivals(rows, test)
    for name, result in baselines.items():
        print(name, result, flush=True)
    with ThreadPoolExecutor(parallel) as pool:
        folders = [folder / str(number) for number in range(len(variants))]
        random = [name == RANDOM_START for name in ["seed"] * SEEDS + list(ABLATION)]
        trainings = list(pool.map(partial(train_apart, data), variants, folders, random))
    results = [measure(training, test) for training in trainings]
    for variant, result in zip(variants, results, strict=True):
        print(variant, result, flush=True)
    line = summary(results[:SEEDS], baselines)
    line["bits"] = fewer_bits(Path(trainings[0]["onnx"]), test, folder)
    for name, result in line["bits"].items():
        print(name, result, flush=True)
    if ablated:
        variants_without = ablation.components(trainings[0], rows, test)
        without = {"table alone": baselines["covisitation"], **variants_without}
        without |= dict(zip(ABLATION, results[SEEDS:], strict=True))
        line["ablation"] = ablation.compare(results[0], without)
    return line


def summary(seeds: list[dict], baselines: dict[str, dict]) -> dict:
    """Means over the seeds, and the slowest training."""
    return {
        "recall@20": round(float(np.mean([seed["recall@20"] for seed in seeds])), 4),
        "mrr@20": round(float(np.mean([seed["mrr@20"] for seed in seeds])), 4),
        "train_seconds": max(seed["train_seconds"] for seed in seeds),
        "seeds": seeds,
        "size_mb": seeds[0]["size_mb"],
        "p50_ms": seeds[0]["p50_ms"],
        **{
            f"{name}_{m}": value
            for name, result in baselines.items()
            for m, value in result.items()
        },
    }


def main() -> None:
    """Run the benchmark that the module describes."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.recommender", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument(
        "--data", type=Path, required=True, help="folder with the sessions and the published test"
    )
    parser.add_argument("--parallel", type=int, default=os.cpu_count(), help="trainings at a time")
    parser.add_argument(
        "--ablation", action="store_true", help="also train without parts of it, which takes longer"
    )
    parser.add_argument(
        "--params", type=json.loads, default={}, help="other than the defaults, as JSON"
    )
    # Folder of one training, which has the parameters of `--params` alone.
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--random-start", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    data = given.data.resolve()
    if given.folder is not None:
        rows, _ = published.load(data)
        print(json.dumps(train(rows, given.params, given.folder, given.random_start)))
        return
    with tempfile.TemporaryDirectory(prefix="kreislauf-benchmark-") as folder:
        print(json.dumps(run(data, Path(folder), given.params, given.parallel, given.ablation)))


if __name__ == "__main__":
    main()
