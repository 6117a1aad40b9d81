"""One training from rows to files.

Nothing is held back from what is served: each network learns from all parts of the queries but
one, and is judged by that one. Krogh and Vedelsby, "Neural network ensembles, cross validation, and
active learning", 1995.
"""

import time
import zlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
import torch
from lightning.pytorch.utilities.seed import isolate_rng

from models.runtime import one_thread, silence_libraries
from models.search_ranker import export, metrics, warm_start
from models.search_ranker.batches import Batches
from models.search_ranker.features import NO_CATEGORY, Lists, lists
from models.search_ranker.fit import Task, centred, fit
from models.search_ranker.network import Members, Scaling, Scorer
from models.search_ranker.schema import CATEGORIES, FEATURES
from models.search_ranker.vocabulary import Vocabulary
from models.spec import MAX_BATCH, TrainingContext, TrainingResult

MAX_LISTS = 50_000
"""Maximum lists that are learnt from, the newest; they lie in memory."""
PARITY_INPUTS = 500
"""Lists on which file and module are compared, if there are as many."""


@dataclass(frozen=True)
class Fitted:
    """What a training has learnt, before there is a file."""

    scorer: Scorer
    validation: float
    """Mean NDCG@10 of the lists, each by the networks that did not learn from it."""
    curves: list[tuple[str, int, float]]
    is_warm: bool


def train(rows: pl.DataFrame, params: Any, work: TrainingContext) -> TrainingResult:
    """See `ModelSpec.train`."""
    began = time.perf_counter()
    searches = rows.group_by("search").agg(pl.col("ts").min())
    if searches.height > MAX_LISTS:
        newest = searches.sort("ts", "search").tail(MAX_LISTS)
        rows = rows.join(newest, on="search", how="semi")
    features, categories = (
        int(rows[name].list.len().max() or 0)  # type: ignore[arg-type]
        for name in ("features", "categories")
    )
    learnt = lists(rows, max(features, 1), categories)
    fitted = fit_lists(learnt, params, work)
    work.before_write()
    onnx = work.folder / "model.onnx"
    drawn = np.unique(np.linspace(0, len(learnt) - 1, PARITY_INPUTS).astype(int))
    with one_thread():
        export.export(fitted.scorer, FEATURES, onnx)
        parity = export.parity(fitted.scorer, onnx, padded(learnt.take(drawn)))
    work.before_write()
    weights = warm_start.save_weights(work.folder / "weights.safetensors", fitted.scorer)
    numbers = {"seconds": time.perf_counter() - began, "lists": float(len(learnt))}
    return TrainingResult(
        onnx,
        weights,
        parity,
        fitted.validation,
        {"validation_ndcg": fitted.validation} | numbers,
        fitted.curves,
        fitted.is_warm,
    )


def fit_lists(learnt: Lists, params: Any, work: TrainingContext) -> Fitted:
    """Fit all networks on the lists.

    Raises ValueError if all lists are of the same part of the queries.
    """
    folds = parts(learnt.queries, params.folds)
    if len(np.unique(folds)) < 2:
        raise ValueError(
            f"There are {len(np.unique(learnt.queries))} queries with a right answer, too few to "
            "learn from some and judge by the others: widen the window."
        )
    with silence_libraries(), one_thread(), isolate_rng():
        torch.manual_seed(params.seed)
        scorer, is_warm = start(learnt, params, work)
        members = torch.arange(scorer.members.members) % params.folds
        task = Task(scorer, members, params, unit_of(learnt))
        numbers = scorer.vocabulary.numbers(learnt.categories)
        batches = Batches(learnt, numbers, folds, params.batch_size, params.steps, params.seed)
        fit(task, batches, work)
        quality = judge(scorer, learnt, numbers, members.numpy()[:, None] == folds)
    return Fitted(scorer, quality, task.curves, is_warm)


def parts(queries: np.ndarray, folds: int) -> np.ndarray:
    """Part of each query, 0 to `folds` - 1, int64 (n,); that of a query stays the same for good.

    So a network that starts from its parent's weights never learnt from what judges it.
    """
    numbers = [zlib.crc32(query.encode()) % folds for query in queries.tolist()]
    return np.array(numbers, np.int64)


def unit_of(learnt: Lists) -> float:
    """Deviation of the targets of a list from their mean."""
    present = torch.from_numpy(learnt.present)
    differences = centred(torch.from_numpy(learnt.targets), present)[present]
    return max(float(differences.std()), 1e-6)


def start(learnt: Lists, params: Any, work: TrainingContext) -> tuple[Scorer, bool]:
    """A scorer, and whether it has its weights from the parent: those of another form are left."""
    scaling = Scaling.of(learnt.features, learnt.present)
    vocabulary = Vocabulary.of(learnt)
    columns = Scaling.COLUMNS * learnt.features.shape[2]
    count = params.folds * params.networks
    members = Members(count, columns, params.width, params.share, vocabulary.sizes)
    scorer = Scorer(scaling, members, vocabulary)
    return scorer, work.parent is not None and warm_start.take_over(work.parent, scorer)


def judge(scorer: Scorer, learnt: Lists, numbers: np.ndarray, judges: np.ndarray) -> float:
    """Mean NDCG@10 of the lists, each by the members that did not learn from it.

    `numbers` are those of its categories; `judges` says which members these are, bool (members, n).
    """
    values = []
    for first in range(0, len(learnt), MAX_BATCH):
        index = np.arange(first, min(first + MAX_BATCH, len(learnt)))
        batch = learnt.take(index)
        present = torch.from_numpy(batch.present)
        with torch.inference_mode():
            columns = scorer.scaling(torch.from_numpy(batch.features), present)
            scores = scorer.members(columns, present, torch.from_numpy(numbers[index])).numpy()
        weight = judges[:, index, None].astype(np.float32)
        mean = (scores * weight).sum(0) / np.maximum(weight.sum(0), 1)
        order = np.argsort(-np.where(batch.present, mean, -np.inf), axis=1, kind="stable")
        values.append(metrics.ndcg(np.take_along_axis(batch.gains, order, 1), batch.gains))
    return float(np.concatenate(values).mean())


def padded(some: Lists) -> Lists:
    """The same lists with as many features and categories as requests have."""
    features, categories = (
        np.pad(values, [(0, 0), (0, 0), (0, width - values.shape[2])], constant_values=nothing)
        for values, width, nothing in (
            (some.features, FEATURES, np.nan),
            (some.categories, CATEGORIES, NO_CATEGORY),
        )
    )
    return replace(some, features=features, categories=categories)
