"""One training from rows to files: slices of time, warm start, fit, mix, export, parity."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import safetensors
import safetensors.torch
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor
from torch.nn import functional as F

from models.session_recommender import export, metrics
from models.session_recommender.features import PADDING, Catalogue, Covisitation, Events, covisit, events, prefixes
from models.session_recommender.module import Batches, Encoder, Recommender, Scorer, fit, one_thread, quiet
from models.spec import Trained, Work

SLICE, MOST_HELD = 0.05, 1_000
"""Share of the sessions, the newest, that choose the epoch and the mix instead of training; and at most so many."""
MIXES = (1024.0, 64.0, 16.0, 8.0, 4.0, 3.0, 2.0, 1.0)
"""Weights of the table that are tried; with the first it decides almost alone."""
PARITY_INPUTS = 500
LEAST_OLD = 20_000
"""Prefixes that a warm training repeats at least."""


def train(rows: pl.DataFrame, params: Any, work: Work) -> Trained:
    """See `ModelSpec.train`."""
    began = time.perf_counter()
    e = events(rows)
    if not (e.position > 0).any():
        raise ValueError(
            "No session of these rows has two events, so there is no next article to learn: widen the window."
        )
    catalogue = Catalogue(np.unique(e.aid))
    with quiet(), one_thread(), isolate_rng():
        torch.manual_seed(params.seed)
        scorer, network = _fit(e, catalogue, params, work.parent)
        path = export.export(scorer, catalogue, work.folder / "model.onnx")
    trained_until = int(split(e)[0].started().max())
    _save(network.encoder, catalogue, trained_until, work.folder / "weights.safetensors")
    inputs, label = prefixes(e, e.aid, PADDING)
    newest = np.argsort(e.ts[label], kind="stable")[-PARITY_INPUTS:]
    parity = export.parity(scorer, catalogue, path, inputs[newest])
    numbers = {"mix": scorer.mix, "steps": float(network.curves[-1][1])}
    numbers |= {"articles": float(len(catalogue.ids)), "seconds": time.perf_counter() - began}
    return Trained(path, work.folder / "weights.safetensors", parity, network.best, numbers, network.curves)


def _fit(e: Events, catalogue: Catalogue, params: Any, parent: Path | None) -> tuple[Scorer, Recommender]:
    older, newest = split(e)
    table = covisit(older, catalogue)
    encoder = Encoder(catalogue.size, params.dim)
    since = warm(encoder, catalogue, table, parent) if parent else None
    inputs, labels = _tensors(older, catalogue)
    count = np.bincount(labels.numpy(), minlength=catalogue.size)
    if since is not None:
        inputs, labels = _new_and_some_old(inputs, labels, older.started()[older.position > 0] > since)
    validation = Batches(*_tensors(newest, catalogue), 256, catalogue.nothing, shuffled=False)
    network = Recommender(encoder, params, count, table)
    epochs = params.epochs if since is None else params.warm_epochs
    fit(network, Batches(inputs, labels, params.batch_size, catalogue.nothing), validation, epochs)
    hits = {mix: _hits(Scorer(table, encoder, mix), validation) for mix in MIXES}
    return Scorer(covisit(e, catalogue), encoder, choose(hits)).eval(), network


def choose(hits: dict[float, np.ndarray]) -> float:
    """The mix that trusts the table most among those that are not worse than the best by more than chance.

    `hits` has 0 or 1 per prefix, for each mix, in the order of falling trust. One standard error, here of the paired
    difference, is the rule of Breiman et al., "Classification and Regression Trees", 1984, 3.4.3.
    """
    best = max(hits.values(), key=np.mean)
    return next(mix for mix, h in hits.items() if (best - h).mean() <= (best - h).std() / np.sqrt(len(h)))


def split(e: Events) -> tuple[Events, Events]:
    """Older sessions and the newest `SLICE` of them, by start; both are everything if a part would have no prefix."""
    started = e.started()
    starts = np.sort(started[e.position == 1])
    newest = started > starts[-1 - min(int(len(starts) * SLICE), MOST_HELD)]
    older, newer = e.take(~newest), e.take(newest)
    return (older, newer) if (older.position > 0).any() and (newer.position > 0).any() else (e, e)


def _tensors(e: Events, catalogue: Catalogue) -> tuple[Tensor, Tensor]:
    row = catalogue.rows(e.aid)
    inputs, label = prefixes(e, row, catalogue.nothing)
    return torch.from_numpy(inputs), torch.from_numpy(row[label])


def _new_and_some_old(inputs: Tensor, labels: Tensor, new: np.ndarray) -> tuple[Tensor, Tensor]:
    """What the parent has not seen, and as many older prefixes, drawn at random, against forgetting."""
    old = torch.from_numpy(np.flatnonzero(~new))
    old = old[torch.randperm(len(old))[: max(int(new.sum()), LEAST_OLD)]]
    chosen = torch.cat([torch.from_numpy(np.flatnonzero(new)), old])
    return inputs[chosen], labels[chosen]


def _hits(scorer: Scorer, batches: Batches) -> np.ndarray:
    with torch.inference_mode():
        hits = [metrics.recall(scorer.eval()(rows)[0].numpy(), labels.numpy()) for rows, labels in batches]
    return np.concatenate(hits)


def _save(encoder: Encoder, catalogue: Catalogue, trained_until: int, path: Path) -> None:
    tensors = {f"encoder.{k}": v.contiguous() for k, v in encoder.state_dict().items()}
    tensors["catalogue"] = torch.from_numpy(catalogue.ids.copy())
    safetensors.torch.save_file(tensors, path, {"trained_until": str(trained_until)})


def warm(encoder: Encoder, catalogue: Catalogue, table: Covisitation, parent: Path) -> int | None:
    """Copies what `parent` knows into `encoder`; a new article starts at the mean of its neighbours' vectors.

    Returns the time until which the parent was trained, in ms, or None, with `encoder` untouched, if its vectors have
    another length.
    """
    with safetensors.safe_open(str(parent), "pt") as file:
        metadata = file.metadata()
        state = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
    before = Catalogue(state.pop("catalogue").numpy())
    state = {k.removeprefix("encoder."): v for k, v in state.items()}
    articles = state.pop("articles")
    if articles.shape[1] != encoder.articles.shape[1]:
        return None
    row = torch.from_numpy(before.rows(catalogue.raw()))
    known = row < before.nothing
    encoder.load_state_dict(state, strict=False)
    with torch.no_grad():
        encoder.articles[known] = articles[row[known]]
        encoder.articles[~known] += _from_neighbours(encoder, known, table)[~known]
    return int(metadata["trained_until"])


def _from_neighbours(encoder: Encoder, known: Tensor, table: Covisitation) -> Tensor:
    """Weighted mean of the known neighbours' unit vectors, float32 (size, dim); 0 without any."""
    near = torch.from_numpy(table.neighbours)
    weight = torch.from_numpy(table.weights) * known[near]
    unit = encoder.vectors(torch.arange(len(known)))
    mean = F.embedding_bag(near, unit, mode="sum", per_sample_weights=weight)
    return mean / weight.sum(1, keepdim=True).clamp(min=1e-9)
