"""The support answers on questions with known answers, beside a linear SVM.

`python -m benchmarks.support --data ../shared/data/clinc150`. The folder has train.jsonl, val.jsonl
and test.jsonl, whose lines are `{"text": ..., "intent": ...}`; `oos` is the intent of a question
that no known answer fits. Those of train and val are left out: nothing learns from them, and
nothing is chosen by them. Networks that learnt from train alone answer val, which chooses
temperature and threshold. Then networks are trained alike on both, and served. The SVM learns from
both, too. The published models learn from train alone.

Larson et al., "An evaluation dataset for intent classification and out-of-scope prediction", 2019,
report two figures: accuracy over the in-scope questions, and recall of those out of scope. There,
out of scope is one more label, so an in-scope question that is handed over counts as wrong. Here
that is `accuracy_after_hand_over`. `accuracy` asks for the intent alone, which the answer names
whether it is handed over or not. The published figures (SVM 91.0 and 14.5, MLP 93.5 and 47.4, BERT
96.9 and 40.3) are of models that learnt from 100 out-of-scope questions, by which they hand over
little.

`oos_recall` is the share of the out-of-scope questions that are handed over, `ece` the expected
calibration error of the confidence on the in-scope questions, `svm_accuracy` that of scikit-learn's
TF-IDF of words with a linear SVM. `train_seconds` is wall time, `train_cpu_seconds` is what the
training computed, whoever else was on the machine; `p50_ms` is a request with one question on one
thread.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

from kreislauf.evaluation import guards, scoring
from models.spec import TrainingContext
from models.support_answers import SPEC, Params
from models.support_answers.schema import OUT_OF_SCOPE

START = 1_700_000_000_000
"""Time of the first question, ms; one a second follows."""


def read(path: Path) -> pl.DataFrame:
    """Questions of one file: text and intent."""
    return pl.read_ndjson(path, schema={"text": pl.String, "intent": pl.String})


def in_scope(questions: pl.DataFrame) -> pl.DataFrame:
    """Those that a known answer fits."""
    return questions.filter(pl.col("intent") != OUT_OF_SCOPE)


def as_rows(questions: pl.DataFrame) -> pl.DataFrame:
    """Questions as rows of the table, a second apart."""
    numbers = pl.int_range(len(questions), eager=True)
    return questions.select(
        question=numbers.cast(pl.String).str.zfill(9),
        ts=START + 1_000 * numbers,
        text="text",
        intent="intent",
    )


def svm_accuracy(learnt: pl.DataFrame, test: pl.DataFrame) -> float:
    """Accuracy of a linear SVM on TF-IDF of words."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import LinearSVC

    svm = make_pipeline(TfidfVectorizer(), LinearSVC())
    svm.fit(learnt["text"].to_list(), learnt["intent"].to_list())
    return float(svm.score(test["text"].to_list(), test["intent"].to_list()))


def figures(onnx: Path, questions: pl.DataFrame) -> dict[str, float]:
    """What the file answers to in-scope and out-of-scope questions."""
    examples = SPEC.examples(as_rows(in_scope(questions)))
    outputs = scoring.answer(onnx, examples.inputs)
    right = SPEC.score(examples, outputs)
    is_answered = ~outputs["hand_over"][:, 0]
    strange = questions.filter(pl.col("intent") == OUT_OF_SCOPE)["text"].to_list()
    asked = SPEC.tensors([{"text": text} for text in strange])
    return {
        "accuracy": right.mean(),
        "accuracy_after_hand_over": (right * is_answered).mean(),
        "oos_recall": scoring.answer(onnx, asked)["hand_over"].mean(),
        "ece": guards.calibration_error(SPEC.probabilities(outputs), right),
        "handed_over": 1 - is_answered.mean(),
        "answered_wrongly": 1 - right[is_answered].mean(),
        "p50_ms": np.median(scoring.latencies(onnx, examples.inputs)),
    }


def run(data: Path, params: Params, test: str = "test") -> dict[str, float]:
    """Train on train and val, and report what is answered to the questions of `test`."""
    train, val = (in_scope(read(data / f"{name}.jsonl")) for name in ("train", "val"))
    # The newest questions are held out: those of val.
    rows = as_rows(pl.concat([train, val]))
    params = params.model_copy(update={"held_out": len(val) / len(rows)})
    asked = read(data / f"{test}.jsonl")
    with tempfile.TemporaryDirectory() as folder:
        began = time.process_time()
        trained = SPEC.train(rows, params, TrainingContext(Path(folder)))
        seconds = {
            "train_seconds": trained.metrics["seconds"],
            "train_cpu_seconds": time.process_time() - began,
        }
        measured = figures(trained.onnx, asked)
    measured |= seconds | {"svm_accuracy": svm_accuracy(rows, in_scope(asked))}
    return {name: round(float(value), 4) for name, value in measured.items()}


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with the three files")
    parser.add_argument("--test", default="test", help="name of the file that is asked")
    arguments = parser.parse_args()
    print(json.dumps(run(arguments.data, Params(), arguments.test)))


if __name__ == "__main__":
    main()
