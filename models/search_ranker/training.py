"""One training from rows to files.

Nothing is held back from what is served: each network learns from all parts of the queries but
one, and is judged by that one. Krogh and Vedelsby, "Neural network ensembles, cross validation, and
active learning", 1995.
"""

import time
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from safetensors.torch import load_file, save_file

from models.runtime import one_thread, silence_libraries
from models.search_ranker import export, metrics
from models.search_ranker.batches import Batches
from models.search_ranker.features import Lists, lists
from models.search_ranker.fit import Task, centred, fit
from models.search_ranker.network import Members, Scaling, Scorer
from models.search_ranker.schema import FEATURES
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
    width = int(rows["features"].list.len().max() or 1)  # type: ignore[arg-type]
    learnt = lists(rows, width)
    fitted = fit_lists(learnt, params, work)
    work.before_write()
    onnx = work.folder / "model.onnx"
    drawn = np.unique(np.linspace(0, len(learnt) - 1, PARITY_INPUTS).astype(int))
    with one_thread():
        export.export(fitted.scorer, FEATURES, onnx)
        parity = export.parity(fitted.scorer, onnx, padded(learnt.take(drawn), FEATURES))
    work.before_write()
    weights = work.folder / "weights.safetensors"
    state = fitted.scorer.state_dict()
    save_file({name: t.contiguous() for name, t in state.items()}, weights)
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
        batches = Batches(learnt, folds, params.batch_size, params.steps, params.seed)
        fit(task, batches, work)
        quality = judge(scorer, learnt, members.numpy()[:, None] == folds)
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
    columns = Scaling.COLUMNS * learnt.features.shape[2]
    count = params.folds * params.networks
    scorer = Scorer(scaling, Members(count, columns, params.width, params.share))
    if work.parent is None:
        return scorer, False
    state = load_file(work.parent)
    own = scorer.state_dict()
    if {name: t.shape for name, t in state.items()} != {name: t.shape for name, t in own.items()}:
        return scorer, False
    weights = {name: t for name, t in state.items() if name.startswith("members.")}
    scorer.load_state_dict(weights, strict=False)
    return scorer, True


def judge(scorer: Scorer, learnt: Lists, judges: np.ndarray) -> float:
    """Mean NDCG@10 of the lists, each by the members that did not learn from it.

    `judges` says which members these are, bool (members, n).
    """
    values = []
    for first in range(0, len(learnt), MAX_BATCH):
        index = np.arange(first, min(first + MAX_BATCH, len(learnt)))
        batch = learnt.take(index)
        present = torch.from_numpy(batch.present)
        with torch.inference_mode():
            columns = scorer.scaling(torch.from_numpy(batch.features), present)
            scores = scorer.members(columns, present).numpy()
        weight = judges[:, index, None].astype(np.float32)
        mean = (scores * weight).sum(0) / np.maximum(weight.sum(0), 1)
        order = np.argsort(-np.where(batch.present, mean, -np.inf), axis=1, kind="stable")
        values.append(metrics.ndcg(np.take_along_axis(batch.gains, order, 1), batch.gains))
    return float(np.concatenate(values).mean())


def padded(some: Lists, width: int) -> Lists:
    """The same lists with `width` features, as requests have them."""
    gap = [(0, 0), (0, 0), (0, width - some.features.shape[2])]
    features = np.pad(some.features, gap, constant_values=np.nan)
    return Lists(some.items, features, some.gains, some.targets, some.queries)
