"""NDCG@10 of the search ranker, beside LightGBM's lambdarank in the same run.

`python -m benchmarks.ranker --data FOLDER` takes all queries of FOLDER: LibSVM lines in
`rank.train` and `rank.test`, and the number of lines of each query in files of the same names with
`.query` at the end. Queries are cut into five parts. Each is answered by models that learnt from
the other four, of five seeds each, and a query's quality is the mean over the seeds.

Both are tuned alike, and only on the four parts: each has as many candidates, the one with the best
NDCG@10 by cross-validation inside them is trained with all seeds. The inner parts of the queries
are the same for both. So what is reported chose nothing. Trees get the raw features, as LightGBM's
users give them; a feature without a value is missing.

The difference is paired by query, its interval is the bootstrap of the gate. Queries in which
nothing is right are left out, because every order of them is as good. Parts are computed in
processes of one thread, `--parallel` at a time (default: the cores). `train_seconds` is the CPU
time of a training of the ranker, the median; `p50_ms` that of a request with one list, on one
thread, of one file. The last line is JSON.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from kreislauf.evaluation import scoring
from kreislauf.evaluation.intervals import interval
from models.search_ranker import SPEC, metrics
from models.search_ranker.features import INPUTS, NO_CATEGORY, NO_GAIN, NO_ITEM, Lists
from models.search_ranker.schema import CATEGORIES, RESULTS
from models.spec import TrainingContext

FOLDS = 5
"""Number of parts that the queries are cut into."""
SEEDS = 5
"""Number of trainings of each part's chosen candidate."""
CANDIDATES: list[dict[str, Any]] = [
    {"share": 0.5, "feature_dropout": 0.6},
    {"share": 0.5, "feature_dropout": 0.8},
    {"share": 0.5, "feature_dropout": 0.3},
]
"""Parameters of the ranker that are compared on the training parts."""
TREES: list[dict[str, Any]] = [
    {"num_leaves": 7, "min_data_in_leaf": 20, "feature_fraction": 0.3, "lambda_l2": 1},
    {"num_leaves": 4, "min_data_in_leaf": 50, "feature_fraction": 0.2, "lambda_l2": 1},
    {"num_leaves": 15, "min_data_in_leaf": 50, "feature_fraction": 0.1, "lambda_l2": 5},
]
"""Parameters of LightGBM that are compared on the training parts."""
ROUNDS = (100, 200)
"""Numbers of trees that are compared for each of `TREES`."""
ROOT = Path(__file__).resolve().parent.parent


def read(folder: Path) -> Lists:
    """All queries in which something is right. Raises FileNotFoundError and ValueError."""
    lists = [*queries(folder / "rank.train"), *queries(folder / "rank.test")]
    width = max(max(row, default=0) for _, rows in lists for row in rows)
    longest = max(len(grades) for grades, _ in lists)
    if longest > RESULTS:
        raise ValueError(f"{folder}: a query has {longest} lines, the ranker takes {RESULTS}.")
    items = np.full((len(lists), RESULTS), NO_ITEM, object)
    features = np.full((len(lists), RESULTS, width), np.nan, np.float32)
    gains = np.full((len(lists), RESULTS), NO_GAIN, np.float32)
    targets = np.zeros((len(lists), RESULTS), np.float32)
    for i, (grades, rows) in enumerate(lists):
        items[i, : len(grades)] = [str(place) for place in range(len(grades))]
        gains[i, : len(grades)] = 2.0 ** np.array(grades) - 1
        targets[i, : len(grades)] = grades
        for j, row in enumerate(rows):
            features[i, j, [number - 1 for number in row]] = list(row.values())
    names = np.array([f"query {i}" for i in range(len(lists))], object)
    categories = np.full((len(lists), RESULTS, CATEGORIES), NO_CATEGORY, object)
    every = Lists(items, features, categories, gains, targets, names)
    return every.take(gains.max(1) > 0)


def queries(path: Path) -> Iterator[tuple[list[float], list[dict[int, float]]]]:
    """Grades and features, by their number from 1, of the lines of each query."""
    lines = path.read_text().splitlines()
    sizes = [int(size) for size in Path(f"{path}.query").read_text().split()]
    if sum(sizes) != len(lines):
        raise ValueError(f"{path} has {len(lines)} lines, its queries {sum(sizes)}.")
    first = 0
    for size in sizes:
        words = [line.split() for line in lines[first : first + size]]
        pairs = [[word.split(":") for word in row[1:]] for row in words]
        rows = [{int(number): float(value) for number, value in row} for row in pairs]
        yield [float(row[0]) for row in words], rows
        first += size


def ndcg(scores: np.ndarray, lists: Lists) -> np.ndarray:
    """NDCG@10 of each list by scores (n, RESULTS): float64 (n,)."""
    order = np.argsort(-np.where(lists.present, scores, -np.inf), axis=1, kind="stable")
    return metrics.ndcg(np.take_along_axis(lists.gains, order, 1), lists.gains)


def rank(learnt: Lists, asked: Lists, folder: Path) -> dict:
    """NDCG@10 of each asked list, mean over the seeds; parameters, seconds and the first file."""
    from models.search_ranker import export, training

    seconds: list[float] = []

    def train(changes: dict, seed: int) -> training.Fitted:
        place = folder / f"{len(seconds)}"
        place.mkdir(parents=True)
        params = SPEC.Params.model_validate(changes | {"seed": seed})
        began = time.process_time()
        fitted = training.fit_lists(learnt, params, TrainingContext(place))
        seconds.append(time.process_time() - began)
        line = f"  ranker {changes} seed {seed}: {fitted.validation:.4f} {seconds[-1]:.0f} s"
        print(line, file=sys.stderr, flush=True)
        return fitted

    first = [train(changes, 0) for changes in CANDIDATES]
    best = int(np.argmax([fitted.validation for fitted in first]))
    trained = [first[best], *(train(CANDIDATES[best], seed) for seed in range(1, SEEDS))]
    values = []
    inputs = {name: getattr(asked, name) for name in INPUTS}
    for fitted in trained:
        order, _ = export.module_answers(fitted.scorer, inputs)
        values.append(metrics.ndcg(np.take_along_axis(asked.gains, order, 1), asked.gains))
    width = asked.features.shape[2]
    onnx = export.export(trained[0].scorer, width, folder / "model.onnx")
    parity = export.parity(trained[0].scorer, onnx, asked)
    if not parity.passed:
        raise RuntimeError(f"The file answers differently from what was measured: {parity}")
    return {
        "values": np.mean(values, 0).tolist(),
        "chosen": CANDIDATES[best],
        "seconds": seconds,
        "p50_ms": float(np.median(scoring.latencies(onnx, inputs))),
        "megabytes": onnx.stat().st_size / 1e6,
    }


def grow(learnt: Lists, asked: Lists) -> dict:
    """The same of LightGBM."""
    from models.search_ranker import training

    inner = training.parts(learnt.queries, SPEC.Params().folds)
    quality = np.zeros((len(TREES), len(ROUNDS)))
    for i, params in enumerate(TREES):
        for part in np.unique(inner):
            held = learnt.take(inner == part)
            model = lambdarank(learnt.take(inner != part), params, max(ROUNDS), 0)
            for j, rounds in enumerate(ROUNDS):
                quality[i, j] += ndcg(by_trees(model, held, rounds), held).sum() / len(learnt)
        print(f"  LightGBM {params}: {quality[i].round(4)}", file=sys.stderr, flush=True)
    best, column = divmod(int(quality.argmax()), len(ROUNDS))
    count = ROUNDS[column]
    values = []
    for seed in range(SEEDS):
        model = lambdarank(learnt, TREES[best], count, seed)
        values.append(ndcg(by_trees(model, asked, count), asked))
    return {"values": np.mean(values, 0).tolist(), "chosen": TREES[best] | {"trees": count}}


def lambdarank(learnt: Lists, params: dict, rounds: int, seed: int) -> Any:
    """A LightGBM booster that learnt from the lists."""
    import lightgbm

    present = learnt.present
    grades = learnt.targets[present]
    data = lightgbm.Dataset(learnt.features[present], grades, group=present.sum(1))
    settings = {
        "objective": "lambdarank",
        "learning_rate": 0.05,
        "bagging_fraction": 0.8,
        "bagging_freq": 1,
        "num_threads": 1,
        "seed": seed,
        "verbose": -1,
    }
    return lightgbm.train(settings | params, data, rounds)


def by_trees(model: Any, asked: Lists, rounds: int) -> np.ndarray:
    """Scores of a booster's first trees, (n, RESULTS)."""
    scores = np.zeros(asked.gains.shape)
    scores[asked.present] = model.predict(asked.features[asked.present], num_iteration=rounds)
    return scores


def answer_part(data: Path, folder: Path, part: int) -> dict:
    """Both models on the lists of a part."""
    lists = read(data)
    held = part_of(len(lists)) == part
    learnt = lists.take(~held)
    asked = lists.take(held)
    return {"ranker": rank(learnt, asked, folder), "trees": grow(learnt, asked)}


def part_of(count: int) -> np.ndarray:
    """The part of each of so many lists, int64 (count,)."""
    return np.random.default_rng(0).permutation(count) % FOLDS


def answer_apart(data: Path, folder: Path, part: int) -> dict:
    """What `answer_part` returns, in a process of its own."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.ranker", "--data", str(data)]
    command += ["--part", str(part), "--folder", str(folder / str(part))]
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=one_thread)
    if done.returncode:
        raise RuntimeError(f"Part {part} failed: see above.")
    return json.loads(done.stdout.splitlines()[-1])


def summary(parts: list[dict], held: np.ndarray) -> dict:
    """The dictionary of the JSON line, of the results of all parts; `held` is `part_of` all."""
    values = {}
    for name in ("ranker", "trees"):
        values[name] = np.zeros(len(held))
        for part, result in enumerate(parts):
            values[name][held == part] = result[name]["values"]
    difference = values["ranker"] - values["trees"]
    paired = interval(difference, np.arange(len(held)), SPEC.policy.confidence)
    return {
        "ndcg@10": round(float(values["ranker"].mean()), 4),
        "lightgbm_ndcg@10": round(float(values["trees"].mean()), 4),
        "difference": round(paired.mean, 4),
        "difference_low": round(paired.low, 4),
        "difference_high": round(paired.high, 4),
        "difference_sd": round(float(difference.std()), 4),
        "train_seconds": round(
            float(np.median([s for p in parts for s in p["ranker"]["seconds"]]))
        ),
        "p50_ms": round(float(np.median([part["ranker"]["p50_ms"] for part in parts])), 2),
        "size_mb": round(parts[0]["ranker"]["megabytes"], 1),
        "queries": len(held),
        "seeds": SEEDS,
    }


def main() -> None:
    """Run the benchmark that the module describes."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ranker", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with judged queries")
    parser.add_argument("--parallel", type=int, default=os.cpu_count(), help="parts at a time")
    # One part, in a process of its own.
    parser.add_argument("--part", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    data = given.data.resolve()
    if given.part is not None:
        print(json.dumps(answer_part(data, given.folder, given.part)))
        return
    with (
        tempfile.TemporaryDirectory(prefix="kreislauf-benchmark-") as folder,
        ThreadPoolExecutor(given.parallel) as pool,
    ):
        parts = list(pool.map(partial(answer_apart, data, Path(folder)), range(FOLDS)))
    for part, result in enumerate(parts):
        print(part, result["ranker"]["chosen"], result["trees"]["chosen"])
    print(json.dumps(summary(parts, part_of(len(read(data))))))


if __name__ == "__main__":
    main()
