"""Recall@20 and MRR@20 of the recommender on a published test, beside what it has to beat.

`python -m benchmarks.recommender --data FOLDER` trains three seeds on the sessions before the test
and asks each ONNX file for every test prefix, the whole catalogue ranked; popularity, the
co-visitation table and session kNN answer the same prefixes in the same run. FOLDER has
`sessions.jsonl.gz`, `test_prefixes.parquet` and `meta.json`, which says where the test begins; the
test is used for nothing else. Seeds are trained in processes of one thread, `--parallel` at a time
(default: the cores), so `train_seconds`, the wall time of the slowest, is an upper bound. Nothing
else runs meanwhile.

The first seed's file is also asked with fewer bits (precision.py); beside what that costs stands
the paired interval that the gate would use. `--ablation` also trains the variants in ABLATION, with
the first seed, and takes the first seed's model apart; gains are what the whole model has more, to
be read beside how far the seeds lie apart. The last line is JSON; in it, size (MB of 10^6 bytes)
and latency (one session, one thread) are the first seed's.
"""

import argparse
import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import polars as pl

from benchmarks import precision
from benchmarks.knn import Neighbours
from kreislauf.evaluation import scoring
from kreislauf.evaluation.intervals import interval
from models.session_recommender import SPEC, metrics, training
from models.session_recommender.covisitation import covisit
from models.session_recommender.features import LENGTH, PADDING, Catalogue, events
from models.spec import Examples, Tensors, TrainingContext

SEEDS = 3
RANDOM_START = "vectors start at random"
ABLATION: dict[str, dict] = {
    RANDOM_START: {},
    "encoder does not learn from the newest sessions": {"block_lr": 1e-9},
}
"""Other parameters, by what they show. What needs no training of its own is in `parts`."""
ROOT = Path(__file__).resolve().parent.parent


def load(folder: Path) -> tuple[pl.DataFrame, Examples]:
    """Rows to train on, and the test as published."""
    rows, tested = published_split(folder)
    return rows, SPEC.examples(tested)


def published_split(folder: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Rows to train on, and of the test. Raises ValueError if the test's prefixes are not those
    that were published."""
    first = json.loads((folder / "meta.json").read_text())["first_test_session"]
    decoder = msgspec.json.Decoder(SPEC.table.line)
    with gzip.open(folder / "sessions.jsonl.gz") as file:
        rows = SPEC.table.unfold([decoder.decode(line) for line in file]).drop("line")
    tested = rows.filter(pl.col("session") >= first)
    test = SPEC.examples(tested)
    published = pl.read_parquet(folder / "test_prefixes.parquet")
    theirs = _counted(published["prefix"].list.tail(LENGTH).to_list(), published["label"].to_list())
    ours = _counted(test.inputs["article_ids"].tolist(), test.labels.tolist())
    missing = theirs - ours
    extra = ours - theirs
    if example := next(iter(missing or extra), None):
        raise ValueError(
            f"The prefixes of the sessions from {first} on are not those of test_prefixes.parquet: {missing.total()} "
            f"of {len(published)} are missing, {extra.total()} are too many, such as {list(example[:-1])} with the "
            f"label {example[-1]}. Is first_test_session in meta.json right?"
        )
    return rows.filter(pl.col("session") < first), tested


def _counted(prefixes: list[list[int]], labels: list[int]) -> Counter[tuple[int, ...]]:
    """How often there is each prefix, without padding and with its label behind it."""
    pairs = zip(prefixes, labels, strict=True)
    return Counter((*(aid for aid in prefix if aid != PADDING), label) for prefix, label in pairs)


def trained(data: Path, params: dict, folder: Path, random_start: bool) -> dict:
    """What `train` returns, in a process of its own."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.recommender", "--data", str(data)]
    command += [
        "--params",
        json.dumps(params),
        "--folder",
        str(folder),
        *["--random-start"] * random_start,
    ]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise RuntimeError(f"The training with {params} failed: see above.")
    return json.loads(done.stdout.splitlines()[-1])


def train(rows: pl.DataFrame, params: dict, folder: Path, random_start: bool = False) -> dict:
    """Trains in `folder`, and says on standard error how far it is. Returns the files, and how it
    went: how long it took, and the recall on the end of the train sessions, of what is served and
    of what else could have been."""
    if random_start:
        training.placed = lambda known, drawn: drawn
    told = [0.0]
    chosen = SPEC.Params.model_validate(params)

    def report(share: float, found: dict[str, float]) -> None:
        if share >= told[0] + 0.1:
            told[0] = share
            print(
                f"  {params} {share:4.0%} {time.perf_counter() - began:6.0f} s {found}",
                file=sys.stderr,
                flush=True,
            )

    folder.mkdir(parents=True)
    began = time.perf_counter()
    done = SPEC.train(rows, chosen, TrainingContext(folder, report=report))
    seconds = round(time.perf_counter() - began)
    validated = {
        name: round(value, 4)
        for name, value in done.metrics.items()
        if name.startswith("validation_")
    }
    numbers = {"train_seconds": seconds, "validation": round(done.validation, 4), **validated}
    return {"onnx": str(done.onnx), "weights": str(done.weights), "numbers": numbers}


def measured(training: dict, test: Examples) -> dict:
    """What the file that would be served is worth, and costs."""
    onnx = Path(training["onnx"])
    result = quality(scoring.answer(onnx, test.inputs)["answers"], test)
    size = round(onnx.stat().st_size / 1e6, 1)
    return {**result, **training["numbers"], "size_mb": size, "p50_ms": p50(onnx, test.inputs)}


def quality(answers: np.ndarray, test: Examples) -> dict:
    """Means over all prefixes."""
    found = {
        "recall@20": metrics.recall(answers, test.labels),
        "mrr@20": metrics.mrr(answers, test.labels),
    }
    return {name: round(float(values.mean()), 4) for name, values in found.items()}


def p50(onnx: Path, inputs: Tensors) -> float:
    """Median milliseconds of a request with one session, on one thread."""
    return round(float(np.median(scoring.latencies(onnx, inputs))), 2)


def fewer_bits(onnx: Path, test: Examples, folder: Path) -> dict[str, dict]:
    """The same numbers of each variant of the file, and what of recall@20 it gains over the file
    with its interval."""
    found = {}
    recalls = {}
    for name, path in precision.variants(onnx, folder).items():
        answers = scoring.answer(path, test.inputs)["answers"]
        recalls[name] = metrics.recall(answers, test.labels)
        gain = interval(recalls[name] - recalls["float32"], test.groups, SPEC.policy.confidence)
        size = round(path.stat().st_size / 1e6, 1)
        found[name] = quality(answers, test) | {
            "size_mb": size,
            "p50_ms": p50(path, test.inputs),
            "gain": str(gain),
        }
    return found


def beside(rows: pl.DataFrame, test: Examples) -> dict[str, dict]:
    """The same numbers of what needs no training."""
    popular = (
        rows.group_by("aid")
        .len()
        .sort(["len", "aid"], descending=[True, False])["aid"]
        .head(20)
        .to_numpy()
    )
    with tempfile.TemporaryDirectory() as folder:
        table = scoring.answer(SPEC.baseline(rows, Path(folder)), test.inputs)["answers"]
    knn = Neighbours(rows).answers(test.inputs["article_ids"])
    found = {"popularity": np.tile(popular, (len(test), 1)), "covisitation": table, "knn": knn}
    return {name: quality(answers, test) for name, answers in found.items()}


def parts(training: dict, rows: pl.DataFrame, test: Examples) -> dict[str, dict]:
    """The same numbers of the trained model's encoder alone, and of encoder and table without the
    ranker."""
    import safetensors.torch
    import torch

    from models.session_recommender.encoder import Encoder
    from models.session_recommender.scorer import Known, Scorer

    class Ignored(Known):
        """Knows which articles there are, and nothing of what was seen together."""

        def covisitation(
            self, rows: torch.Tensor, known: torch.Tensor
        ) -> tuple[torch.Tensor, torch.Tensor]:
            return rows, rows * 0.0

    state = safetensors.torch.load_file(training["weights"])
    learnt = {
        name.removeprefix("encoder."): t for name, t in state.items() if name.startswith("encoder.")
    }
    encoder = Encoder(*learnt["articles"].shape)
    encoder.load_state_dict(learnt)
    e = events(rows)
    catalogue = Catalogue(np.unique(e.aid))
    found = {}
    table = covisit(e, catalogue)
    asked = catalogue.rows(test.inputs["article_ids"]), test.inputs["types"], test.inputs["times"]
    batches = list(
        zip(*(torch.from_numpy(values).split(scoring.BATCH) for values in asked), strict=True)
    )
    for name, known in {
        "encoder alone": Ignored(table),
        "table and encoder, no ranker": Known(table),
    }.items():
        scorer = Scorer(known, encoder).eval()
        with torch.inference_mode():
            best = torch.cat([scorer(*batch)[0] for batch in batches]).numpy()
        found[name] = quality(catalogue.raw()[best], test)
    return found


def ablate(whole: dict, without: dict[str, dict]) -> None:
    """Prints how much the whole model is better than each variant."""
    columns = ("recall@20", "mrr@20")
    print(f"{'first seed':50}", *(f"{column:>10} {'gain':>8}" for column in columns))
    for name, found in {"whole model": whole, **without}.items():
        print(
            f"{name:50}",
            *(f"{found[column]:10.4f} {whole[column] - found[column]:+8.4f}" for column in columns),
        )


def run(data: Path, folder: Path, params: dict, parallel: int, ablation: bool) -> dict:
    """Everything, with files in `folder`; the dictionary of the JSON line. `params` are those that
    all have."""
    variants = [params | {"seed": seed} for seed in range(SEEDS)]
    variants += [params | {"seed": 0} | changed for changed in ABLATION.values() if ablation]
    for variant in variants:
        SPEC.Params.model_validate(variant)
    rows, test = load(data)
    others = beside(rows, test)
    for name, result in others.items():
        print(name, result, flush=True)
    with ThreadPoolExecutor(parallel) as pool:
        folders = [folder / str(number) for number in range(len(variants))]
        random = [name == RANDOM_START for name in ["seed"] * SEEDS + list(ABLATION)]
        trainings = list(pool.map(partial(trained, data), variants, folders, random))
    results = [measured(training, test) for training in trainings]
    for params, result in zip(variants, results, strict=True):
        print(params, result, flush=True)
    line = summary(results[:SEEDS], others)
    line["bits"] = fewer_bits(Path(trainings[0]["onnx"]), test, folder)
    for name, result in line["bits"].items():
        print(name, result, flush=True)
    if ablation:
        without = {"table alone": others["covisitation"], **parts(trainings[0], rows, test)}
        without |= dict(zip(ABLATION, results[SEEDS:], strict=True))
        ablate(results[0], without)
        line["ablation"] = {
            name: {k: r[k] for k in ("recall@20", "mrr@20")} for name, r in without.items()
        }
    return line


def summary(seeds: list[dict], others: dict[str, dict]) -> dict:
    """Means over the seeds, and the slowest training."""
    mean = {
        name: round(float(np.mean([seed[name] for seed in seeds])), 4)
        for name in ("recall@20", "mrr@20")
    }
    return {
        **mean,
        "train_seconds": max(seed["train_seconds"] for seed in seeds),
        "seeds": seeds,
        "size_mb": seeds[0]["size_mb"],
        "p50_ms": seeds[0]["p50_ms"],
        **{
            f"{name}_{metric}": value
            for name, result in others.items()
            for metric, value in result.items()
        },
    }


def main() -> None:
    """See the module."""
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
    parser.add_argument(
        "--folder", type=Path, help=argparse.SUPPRESS
    )  # Of one training, by `--params` alone.
    parser.add_argument("--random-start", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    data = given.data.resolve()
    if given.folder is not None:
        print(json.dumps(train(load(data)[0], given.params, given.folder, given.random_start)))
        return
    with tempfile.TemporaryDirectory(prefix="kreislauf-benchmark-") as folder:
        print(json.dumps(run(data, Path(folder), given.params, given.parallel, given.ablation)))


if __name__ == "__main__":
    main()
