"""How good answers are in a period: of the live version, of the first one, and of a baseline."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from kreislauf import lake
from kreislauf.evaluation import scoring
from models import spec
from serving import live


@dataclass(frozen=True)
class Recalls:
    """Recall@20 over every prefix of a period's sessions."""

    version: int
    """Live version that answered."""
    requests: int
    live: float
    frozen: float
    """Recall of the first model, had it been kept."""
    table: float
    """Recall of the trivial baseline, fitted on everything before the period."""


def ask(model: str, rows: pl.DataFrame, frozen: Path) -> Recalls:
    """Ask the live version on Triton, the ONNX file of the first one, and the baseline for every
    prefix of the sessions in `rows`, which are not in the lake yet.

    Raises NothingLive, or TritonError when Triton does not answer.
    """
    model_type = spec.load(model)
    examples = model_type.examples(rows)
    with ThreadPoolExecutor(1) as pool:
        frozen_answers = pool.submit(scoring.answer, frozen, examples.inputs)
        version, answers = live.answer(model, examples.inputs)
        frozen_scores = model_type.score(examples, frozen_answers.result())
    table_scores = scoring.baseline_scores(model_type, lake.read(model_type.table), examples)
    return Recalls(
        version=version,
        requests=len(examples),
        live=float(model_type.score(examples, answers).mean()),
        frozen=float(frozen_scores.mean()),
        table=float(table_scores.mean()),
    )
