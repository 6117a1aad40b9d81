"""A published test in a folder: the rows to train on, the test, and the numbers of answers to it.

The folder has `sessions.jsonl.gz`, `test_prefixes.parquet` and `meta.json`, which says where the
test begins.
"""

import gzip
import json
from collections import Counter
from pathlib import Path

import msgspec
import numpy as np
import polars as pl

from models.session_recommender import SPEC, metrics
from models.session_recommender.features import LENGTH, PADDING
from models.spec import Examples


def load(folder: Path) -> tuple[pl.DataFrame, Examples]:
    """Rows to train on, and the test as published."""
    rows, tested = split(folder)
    return rows, SPEC.examples(tested)


def split(folder: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Rows to train on, and rows of the test.

    Raises ValueError if the test's prefixes are not those that were published.
    """
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
            f"The prefixes of the sessions from {first} on are not those of "
            f"test_prefixes.parquet: {missing.total()} of {len(published)} are missing, "
            f"{extra.total()} are too many, such as {list(example[:-1])} with the label "
            f"{example[-1]}. Is first_test_session in meta.json right?"
        )
    return rows.filter(pl.col("session") < first), tested


def quality(answers: np.ndarray, test: Examples) -> dict:
    """Mean recall@20 and MRR@20 over all prefixes."""
    scores = {
        "recall@20": metrics.recall(answers, test.labels),
        "mrr@20": metrics.mrr(answers, test.labels),
    }
    return {name: round(float(values.mean()), 4) for name, values in scores.items()}


def _counted(prefixes: list[list[int]], labels: list[int]) -> Counter[tuple[int, ...]]:
    """How often there is each prefix, without padding and with its label behind it."""
    pairs = zip(prefixes, labels, strict=True)
    return Counter((*(aid for aid in prefix if aid != PADDING), label) for prefix, label in pairs)
