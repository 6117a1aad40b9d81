"""One training from rows to files: older sessions shuffled, the newest in the order of time,
export, parity."""

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
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
from models.session_recommender.batches import Batches, Sequences
from models.session_recommender.covisitation import covisit
from models.session_recommender.encoder import Encoder, Session
from models.session_recommender.features import LENGTH, PADDING, Catalogue, Events, events, prefixes
from models.session_recommender.fit import fit
from models.session_recommender.objectives import (
    Block,
    EncoderTask,
    RankerTask,
    Task,
    ranker_batches,
)
from models.session_recommender.runtime import one_thread, quiet
from models.session_recommender.scorer import CANDIDATES, Candidates, Known, Ranker, Scorer
from models.spec import TrainingContext, TrainingResult

NEWEST = 0.15
BLOCKS = 5
"""Share of the sessions, the newest, that are gone through in the order of time; and in how many
blocks."""
MOST_HELD = 1_000
"""Sessions of the first block, at most, that choose the epoch of the encoder."""
MOST_JUDGED = 8_000
"""Prefixes of the last block, at most and the newest, that choose the ranker's epoch and measure
what is served."""
LEAST_OLD = 2_000
"""Older sessions that are repeated with each block at least."""
PARITY_INPUTS = 500


def train(rows: pl.DataFrame, params: Any, work: TrainingContext) -> TrainingResult:
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
        course = Course(e, catalogue, params, work)
        scorer = course.run()
        path = export.export(scorer, catalogue, work.folder / "model.onnx")
    weights = course.save(work.folder / "weights.safetensors")
    newest = np.argsort(e.ts[np.flatnonzero(e.position > 0)], kind="stable")[-PARITY_INPUTS:]
    parity = export.parity(scorer, catalogue, path, [t[newest] for t in inputs(e)])
    numbers = {f"validation_{name}": recall for name, recall in course.validated.items()}
    numbers |= {"steps": float(course.steps), "articles": float(len(catalogue.ids))}
    numbers["seconds"] = time.perf_counter() - began
    return TrainingResult(
        path, weights, parity, course.validated[course.chosen], numbers, course.curves
    )


def inputs(e: Events) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Raw article ids, kinds and times of every prefix, int64 (n, LENGTH) each."""
    return tuple(prefixes(e, values, PADDING)[0] for values in (e.aid, e.kind, e.ts))  # type: ignore[return-value]


@dataclass(frozen=True)
class Part:
    """A stretch of a training in the report of the whole."""

    report: Callable[[float, dict[str, float]], None]
    start: float
    end: float

    def __call__(self, share: float, metrics: dict[str, float]) -> None:
        """`share` of the stretch is done."""
        self.report(self.start + share * (self.end - self.start), metrics)


class Course:
    """The steps of one training, each of which leaves its result in the work folder and is skipped
    if it is there.

    The encoder first learns from the older sessions in random order. The newest are then gone
    through in blocks, as they would have come in production: table and encoder answer a block
    before they learn from it (Dawid, "Prequential analysis", 1984). So the ranker is trained on
    answers to sessions that nothing had seen, and nothing is held back from what is served. The end
    of the last block chooses the ranker's epoch, and whether the ranker, or even the encoder, is
    trusted at all.
    """

    def __init__(self, e: Events, catalogue: Catalogue, params: Any, work: TrainingContext):
        self.e = e
        self.catalogue = catalogue
        self.params = params
        self.work = work
        self.row = catalogue.rows(e.aid)
        self.started = e.started()
        self.encoder = Encoder(catalogue.size, params.dim, params.dropout)
        self.ranker_state: dict[str, Tensor] | None = None
        self.inherited = torch.zeros(catalogue.size, dtype=torch.bool)
        self.curves: list[tuple[str, int, float]] = []
        self.steps = 0

    def run(self) -> Scorer:
        """What is to be served, in eval mode."""
        since = self._warm() if self.work.parent else None
        limits = cuts(self.e, since)
        known = self._known(limits[0])
        if since is None:
            self._place(known)
        if since is None and (self.e.position[self.started < limits[0]] > 0).any():
            self._learn_older(known, limits[0], limits[1])
        blocks = []
        for k, (start, end) in enumerate(itertools.pairwise(limits)):
            blocks.append(self._answered(known, start, end))
            known = self._known(end)
            self._welcome(blocks[-1].known, known)
            self._learn_block(known, start, end, k / (len(limits) - 1))
        return self._rank(blocks, known)

    def _known(self, end: int) -> Known:
        """What the sessions that started before `end` (ms) tell."""
        return Known(covisit(self.e.take(self.started < end), self.catalogue))

    def _place(self, known: Known) -> None:
        """Articles that were seen together start near each other."""
        with torch.no_grad():
            self.encoder.articles.copy_(placed(known, self.encoder.articles))

    def _learn_older(self, known: Known, start: int, end: int) -> None:
        """The beginning of the first block chooses the epoch."""
        held = self.e.take((self.started >= start) & (self.started < end))
        held = held.take(held.started() <= np.sort(held.ts[held.position == 0])[:MOST_HELD][-1])
        session, label = self._prefixes(held)
        labels = torch.from_numpy(self.catalogue.rows(held.aid)[label])
        parts = torch.arange(len(labels)).split(256)
        validation = [(Session(*(t[part] for t in session)), labels[part]) for part in parts]
        task = EncoderTask(self.encoder, self.params, known, self._compared(known), self.params.lr)
        self._fit(
            task,
            self._sequences(self.started < start),
            validation,
            self.params.epochs,
            "older",
            (0.0, 0.6),
        )

    def _learn_block(self, known: Known, start: int, end: int, share: float) -> None:
        """The block's sessions and as many older ones, drawn at random, against forgetting."""
        new = (self.started >= start) & (self.started < end)
        old = np.unique(self.e.session[self.started < start])
        count = min(len(old), max(len(np.unique(self.e.session[new])), LEAST_OLD))
        repeated = np.random.default_rng([self.params.seed, start]).choice(
            old, count, replace=False
        )
        batches = self._sequences(new | np.isin(self.e.session, repeated))
        task = EncoderTask(
            self.encoder, self.params, known, self._compared(known), self.params.block_lr
        )
        whole = (0.6 + 0.2 * share, 0.6 + 0.2 * share + 0.2 / BLOCKS)
        self._fit(task, batches, [], self.params.block_epochs, f"block-{start}", whole)

    def _rank(self, blocks: list[Block], known: Known) -> Scorer:
        torch.manual_seed(self.params.seed)
        self.ranker = Ranker(known.articles.numpy())
        if self.ranker_state and fits(self.ranker_state, self.ranker):
            self.ranker.load_state_dict(self.ranker_state)
        count = len(blocks[-1])
        cut = count - min(MOST_JUDGED, (count + 1) // 2)
        held = blocks[-1].take(np.arange(cut, count))
        rest = blocks[-1].take(np.arange(cut))
        validation = [held.take(part) for part in torch.arange(len(held)).split(256)]
        learnt = [block for block in map(Block.answerable, [*blocks[:-1], rest]) if len(block)]
        task = RankerTask(self.ranker, self.params, held)
        if learnt:
            batches = ranker_batches(learnt, self.params.ranker_batch_size, self.params.seed)
            self._fit(task, batches, validation, self.params.ranker_epochs, "ranker", (0.8, 1.0))
        with torch.no_grad():
            ranked = torch.cat([task.scores(part) for part in validation])
            alone = torch.cat([Scorer(held.known)(*part.session)[0] for part in validation])
        hits = {
            "table": metrics.recall(alone.numpy(), held.labels.numpy()),
            "encoder": metrics.recall(held.found.rows[:, :LENGTH].numpy(), held.labels.numpy()),
            "ranker": _hits(held, ranked),
        }
        self.validated = {name: float(h.mean()) for name, h in hits.items()}
        self.chosen = choose(hits)
        encoder = None if self.chosen == "table" else self.encoder.eval()
        return Scorer(
            known, encoder, self.ranker.eval() if self.chosen == "ranker" else None
        ).eval()

    def _fit(
        self, task: Task, batches: Batches, validation: list, epochs: int, name: str, share: tuple
    ) -> None:
        if not len(batches):
            return
        part = Part(self.work.report, *share)
        folder = self.work.folder / name
        # The ranker is so small that one process is enough.
        trainer = self.work.trainer if isinstance(task, EncoderTask) else {}
        fit(task, batches, validation, epochs, folder, trainer, part)
        self.curves += [(curve, self.steps + step, value) for curve, step, value in task.curves]
        self.steps += len(batches) * epochs

    def _sequences(self, chosen: np.ndarray) -> Batches:
        sequences = Sequences.of(self.e.take(chosen), self.row[chosen])
        length = sequences.length
        return Batches(
            length, [len(length)], self.params.batch_size, self.params.seed, sequences.take
        )

    def _compared(self, known: Known) -> np.ndarray:
        """Rows of the articles that the softmax compares: those seen so far."""
        return np.flatnonzero(known.known(torch.arange(self.catalogue.size)).numpy())

    def _prefixes(self, e: Events) -> tuple[Session, np.ndarray]:
        """Every prefix, and the position in `e` of what came next."""
        columns = (
            (self.catalogue.rows(e.aid), self.catalogue.nothing),
            (e.kind, PADDING),
            (e.ts, PADDING),
        )
        found = [prefixes(e, values, padding) for values, padding in columns]
        return Session(*(torch.from_numpy(values) for values, _ in found)), found[0][1]

    def _answered(self, known: Known, start: int, end: int) -> Block:
        """Candidates for each prefix of the sessions from `start` to `end`, in the order of the
        sessions' start."""
        e = self.e.take((self.started >= start) & (self.started < end))
        session, label = self._prefixes(e)
        order = np.argsort(e.started()[label], kind="stable")
        session = Session(*(t[order] for t in session))
        label = label[order]
        scorer = Scorer(known, self.encoder.eval())
        with torch.no_grad():
            pieces = torch.arange(len(label)).split(256)
            parts = [
                scorer.find(Session(*(t[piece] for t in session)), CANDIDATES)[:2]
                for piece in pieces
            ]
        asked = Session(
            *(torch.cat(tensors) for tensors in zip(*(s for s, _ in parts), strict=True))
        )
        found = Candidates(
            *(torch.cat(tensors) for tensors in zip(*(f for _, f in parts), strict=True))
        )
        labels = torch.from_numpy(self.catalogue.rows(e.aid)[label])
        kinds = torch.from_numpy(e.kind[label])
        return Block(known, scorer.vectors, asked, found, labels, kinds)

    def _welcome(self, before: Known, known: Known) -> None:
        """An article that neither `before` nor the parent knew starts at the mean of its
        neighbours' vectors."""
        every = torch.arange(self.catalogue.size)
        old = before.known(every) | self.inherited
        new = known.known(every) & ~old
        if not (new.any() and old.any()):
            return
        near = known.neighbours.long()
        weight = known.weights * old[near]
        with torch.no_grad():
            mean = F.embedding_bag(
                near, self.encoder.vectors(every), mode="sum", per_sample_weights=weight
            )
            mean = mean[new] / weight[new].sum(1, keepdim=True).clamp(min=1e-9)
            drawn = F.normalize(self.encoder.articles[new], dim=1)
            length = self.encoder.articles[old].norm(dim=1).median()
            self.encoder.articles[new] = length * (mean + 0.1 * drawn)

    def _warm(self) -> int | None:
        """Copies what the parent knows. Returns the time until which it has learnt, in ms, or None,
        with nothing changed, if its vectors have another length."""
        with safetensors.safe_open(str(self.work.parent), "pt") as file:
            metadata = file.metadata()
            state = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
        before = Catalogue(state.pop("catalogue").numpy())
        encoder = {
            k.removeprefix("encoder."): v for k, v in state.items() if k.startswith("encoder.")
        }
        articles = encoder.pop("articles")
        if articles.shape[1] != self.encoder.articles.shape[1] or not fits(
            encoder, self.encoder, "articles"
        ):
            return None
        row = torch.from_numpy(before.rows(self.catalogue.raw()))
        self.inherited = row < before.nothing
        self.encoder.load_state_dict(encoder, strict=False)
        with torch.no_grad():
            self.encoder.articles[self.inherited] = articles[row[self.inherited]]
        self.ranker_state = {
            k.removeprefix("ranker."): v for k, v in state.items() if k.startswith("ranker.")
        }
        return int(metadata["trained_until"])

    def save(self, path: Path) -> Path:
        """What the next training starts from."""
        tensors = {f"encoder.{k}": v.contiguous() for k, v in self.encoder.state_dict().items()}
        tensors |= {f"ranker.{k}": v.contiguous() for k, v in self.ranker.state_dict().items()}
        tensors["catalogue"] = torch.from_numpy(self.catalogue.ids.copy())
        safetensors.torch.save_file(tensors, path, {"trained_until": str(int(self.started.max()))})
        return path


def placed(known: Known, drawn: Tensor) -> Tensor:
    """Unit vectors, float32 (size, dim): random ones, `drawn`, after one and two steps along the
    co-visitation, summed.

    Chen et al., "Fast and Accurate Network Embeddings via Very Sparse Random Projection" (FastRP),
    2019. An article that was seen with no other keeps what was drawn.
    """
    size, count = known.neighbours.shape
    index = torch.stack(
        [torch.arange(size).repeat_interleave(count), known.neighbours.flatten().long()]
    )
    seen = torch.sparse_coo_tensor(
        index, known.weights.flatten(), (size, size), check_invariants=True
    )
    together = (seen + seen.T).coalesce()
    once = F.normalize(together @ drawn, dim=1)
    vectors = F.normalize(once + F.normalize(together @ once, dim=1), dim=1)
    return torch.where(vectors.any(1, keepdim=True), vectors, F.normalize(drawn, dim=1))


def fits(state: dict[str, Tensor], module: torch.nn.Module, *but: str) -> bool:
    """Whether `state` has the names and shapes of `module`'s, those in `but` aside."""
    expected = {k: v.shape for k, v in module.state_dict().items() if k not in but}
    return {k: v.shape for k, v in state.items()} == expected


def cuts(e: Events, since: int | None) -> list[int]:
    """Times (ms) between which the newest sessions lie in blocks, by their start; the last lies
    after all.

    New are the sessions that started after `since`, or, without it, the newest `NEWEST` of all.
    """
    starts = np.sort(e.started()[e.position == 1])
    first = (
        np.searchsorted(starts, since, "right")
        if since is not None
        else int(len(starts) * (1 - NEWEST))
    )
    first = min(first, len(starts) - 1)
    if len(starts) - first < BLOCKS:
        first = max(0, len(starts) - max(BLOCKS, int(len(starts) * NEWEST)))
    at = np.linspace(first, len(starts), BLOCKS + 1).astype(int)[:-1]
    return [*sorted({int(starts[i]) for i in at}), int(e.ts.max()) + 1]


def _hits(block: Block, scores: Tensor) -> np.ndarray:
    """1 where the label is among the 20 candidates with the highest scores, else 0."""
    best = block.found.rows.gather(1, scores.topk(LENGTH).indices)
    return metrics.recall(best.numpy(), block.labels.numpy())


def choose(hits: dict[str, np.ndarray]) -> str:
    """The simplest model among those that are not worse than the best by more than chance.

    `hits` has 0 or 1 per prefix, for each model, the simplest first. One standard error, here of
    the paired difference, is the rule of Breiman et al., "Classification and Regression Trees",
    1984, 3.4.3.
    """
    best = max(hits.values(), key=np.mean)
    return next(
        name for name, h in hits.items() if (best - h).mean() <= (best - h).std() / np.sqrt(len(h))
    )
