"""One training from rows to files.

The older sessions come shuffled, the newest in the order of time; export and parity follow.
"""

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from models import text
from models.runtime import one_thread, silence_libraries
from models.session_recommender import blocks, export, fit, initial_vectors, selection, warm_start
from models.session_recommender.batches import Batches, Sequences
from models.session_recommender.blocks import Block
from models.session_recommender.covisitation_index import CovisitationIndex
from models.session_recommender.encoder import Encoder
from models.session_recommender.features import Catalogue, Events, events, prefixes
from models.session_recommender.fit import Stage
from models.session_recommender.history import History
from models.session_recommender.objectives import EncoderTask, RankerTask
from models.session_recommender.ranker import Ranker
from models.session_recommender.scorer import Scorer
from models.spec import TrainingContext, TrainingResult

NEWEST = 0.15
"""Share of the sessions, the newest, that training goes through in the order of time."""
BLOCKS = 5
"""Number of blocks that hold the newest sessions."""
MAX_HELD_OUT = 1_000
"""Maximum sessions of the first block that choose the epoch of the encoder."""
MAX_JUDGED = 8_000
"""Maximum prefixes of the last block, the newest, that choose the ranker's epoch and the model."""
MIN_REPEATED = 2_000
"""Minimum older sessions that are repeated with each block, if there are as many."""
PARITY_INPUTS = 500
"""Newest prefixes on which file and module are compared."""


def train(rows: pl.DataFrame, params: Any, work: TrainingContext) -> TrainingResult:
    """See `ModelSpec.train`."""
    began = time.perf_counter()
    e = events(rows)
    if not (e.position > 0).any():
        raise ValueError(
            "No session of these rows has two events, so there is no next article to learn: "
            "widen the window."
        )
    catalogue = Catalogue.of(e)
    with silence_libraries(), one_thread(), isolate_rng():
        torch.manual_seed(params.seed)
        training = PrequentialTraining(History(e, catalogue), params, work)
        for stage in training.stages():
            fit.fit(stage, work)
            training.record(stage)
        scorer = training.select()
        work.before_write()
        onnx = export.export(scorer, catalogue, work.folder / "model.onnx")
    work.before_write()
    weights = warm_start.save_weights(
        work.folder / "weights.safetensors",
        training.encoder,
        training.ranker,
        catalogue,
        int(training.history.starts.max()),
    )
    newest = np.argsort(e.ts[np.flatnonzero(e.position > 0)], kind="stable")[-PARITY_INPUTS:]
    parity = export.parity(scorer, catalogue, onnx, [values[newest] for values in inputs(e)])
    metrics = training.metrics() | {"seconds": time.perf_counter() - began}
    validation = training.validated[training.chosen]
    is_warm = training.parent_ranker is not None
    return TrainingResult(onnx, weights, parity, validation, metrics, training.curves, is_warm)


def inputs(e: Events) -> list[np.ndarray]:
    """Raw article ids, kinds and times of every prefix, (n, LENGTH) each."""
    return [prefixes(e, values)[0] for values in (e.aid, e.kind, e.ts)]


class PrequentialTraining:
    """Stages of one training; each leaves its result in the work folder and is not repeated.

    The encoder first learns from the older sessions in random order. The newest are then gone
    through in blocks by their start; with a parent, those that are new to it. That is how they
    would have come in production: table and encoder answer a block before they learn from it
    (Dawid, "Prequential analysis", 1984). So the ranker is trained on answers to sessions that
    nothing had seen, and nothing is held back from what is served. The end of the last block
    chooses the ranker's epoch, and the model: table, encoder or ranker.
    """

    ranker: Ranker
    """Set by the last stage, as are `index` and `held_out`."""
    index: CovisitationIndex
    """Co-visitation of all sessions."""
    held_out: Block
    """End of the last block."""

    def __init__(self, history: History, params: Any, work: TrainingContext):
        self.history = history
        self.params = params
        self.work = work
        self.encoder = Encoder(history.catalogue.size, params.dim, params.dropout)
        self.parent_ranker: dict[str, Tensor] | None = None
        self.has_vector = torch.zeros(history.catalogue.size, dtype=torch.bool)
        self.curves: list[tuple[str, int, float]] = []
        self.steps = 0
        self.validated: dict[str, float] = {}
        self.chosen = ""

    def stages(self) -> Iterator[Stage]:
        """Yield the next stage; it is made from what the stages before it have learnt."""
        is_new = self.start_warm()
        events = self.history.events
        number = blocks.numbers(events, is_new, NEWEST, BLOCKS)
        index = self.history.index(number == 0)
        if is_new is None:
            with torch.no_grad():
                vectors = initial_vectors.propagate(index, self.encoder.articles)
                self.encoder.articles.copy_(vectors)
            self.has_vector = index.is_seen(torch.arange(len(self.has_vector)))
            if (events.position[number == 0] > 0).any():
                yield self.older_stage(index, number)
        initial_vectors.init_new_articles(self.encoder, self.has_vector, index)
        answered = []
        for block in range(1, number.max() + 1):
            answered.append(self.answer_block(index, number == block))
            index = self.history.index(number <= block)
            initial_vectors.init_new_articles(self.encoder, self.has_vector, index)
            yield self.block_stage(index, number, block)
        self.index = index
        yield from self.ranker_stages(answered)

    def record(self, stage: Stage) -> None:
        """Add the curves of a fitted stage to those of the stages before it."""
        self.curves += [(name, self.steps + step, value) for name, step, value in stage.task.curves]
        self.steps += len(stage.batches) * stage.epochs

    def select(self) -> Scorer:
        """The model that is served, in eval mode: the simplest that is good enough."""
        hits = selection.measure(self.held_out, self.ranker)
        self.validated = {name: float(values.mean()) for name, values in hits.items()}
        self.chosen = selection.choose(hits)
        if self.chosen == "table":
            return Scorer(self.index).eval()
        if self.chosen == "encoder":
            return Scorer(self.index, self.encoder).eval()
        return Scorer(self.index, self.encoder, self.ranker).eval()

    def metrics(self) -> dict[str, float]:
        """Recall of each model on the end of the last block, steps, and articles."""
        validated = {f"validation_{name}": recall for name, recall in self.validated.items()}
        articles = len(self.history.catalogue.ids)
        return validated | {"steps": float(self.steps), "articles": float(articles)}

    def start_warm(self) -> np.ndarray | None:
        """Take over the weights of the parent.

        Returns whether each event's session is new to the parent, bool (events,); None, with
        nothing changed, if there is no parent or its encoder has another shape.
        """
        if self.work.parent is None:
            return None
        parent = warm_start.read_parent(self.work.parent)
        is_inherited = warm_start.copy_encoder(parent, self.encoder, self.history.catalogue)
        if is_inherited is None:
            return None
        self.has_vector = is_inherited
        self.parent_ranker = parent.ranker
        if self.work.new_groups is None:
            return self.history.starts > parent.trained_until
        return text.is_among(self.history.events.session, self.work.new_groups)

    def older_stage(self, index: CovisitationIndex, number: np.ndarray) -> Stage:
        """The encoder on the older sessions; the beginning of the first block chooses the epoch."""
        history = self.history
        starts = np.sort(history.starts[(number == 1) & (history.events.position == 0)])
        is_held_out = (number == 1) & (history.starts <= starts[:MAX_HELD_OUT][-1])
        held_out = history.prefixes_of(is_held_out)
        nothing = history.catalogue.nothing
        positions = blocks.by_length(held_out.session.lengths(nothing))
        pieces = [held_out.take(piece) for piece in positions]
        return Stage(
            "older",
            self._encoder_task(index, self.params.lr),
            self.batches(number == 0),
            [(piece.session.narrow(nothing), piece.labels) for piece in pieces],
            self.params.epochs,
            self.work.trainer,
            (0.0, 0.6),
        )

    def answer_block(self, index: CovisitationIndex, mask: np.ndarray) -> Block:
        """Candidates for each prefix of the sessions in `mask`, bool (events,)."""
        asked = self.history.prefixes_of(mask).by_start()
        return blocks.answer(Scorer(index, self.encoder.eval()), asked)

    def block_stage(self, index: CovisitationIndex, number: np.ndarray, block: int) -> Stage:
        """The encoder on the block's sessions and as many older ones, against forgetting."""
        session = self.history.events.number
        is_new = number == block
        start = int(self.history.starts[is_new].min())
        older = np.unique(session[number < block])
        count = min(len(older), max(len(np.unique(session[is_new])), MIN_REPEATED))
        draw = np.random.default_rng([self.params.seed, start])
        repeated = draw.choice(older, count, replace=False)
        progress = 0.6 + 0.2 * (block - 1) / number.max()
        return Stage(
            f"block-{start}",
            self._encoder_task(index, self.params.block_lr),
            self.batches(is_new | np.isin(session, repeated)),
            [],
            self.params.block_epochs,
            self.work.trainer,
            (progress, progress + 0.2 / BLOCKS),
        )

    def ranker_stages(self, answered: list[Block]) -> Iterator[Stage]:
        """The ranker on the answered blocks, if they hold a right answer.

        The end of the last block chooses the epoch. The ranker is so small that one process is
        enough.
        """
        torch.manual_seed(self.params.seed)
        self.ranker = Ranker(self.index.articles.numpy())
        if self.parent_ranker and warm_start.fits(self.parent_ranker, self.ranker):
            self.ranker.load_state_dict(self.parent_ranker)
        *earlier, last = answered
        end = len(last) - min(MAX_JUDGED, (len(last) + 1) // 2)
        self.held_out = last.take(np.arange(end, len(last)))
        candidates = [block.answerable() for block in (*earlier, last.take(np.arange(end)))]
        learnt = [block for block in candidates if len(block)]
        if learnt:
            yield Stage(
                "ranker",
                RankerTask(self.ranker, self.params, self.held_out),
                blocks.ranker_batches(learnt, self.params.ranker_batch_size, self.params.seed),
                self.held_out.pieces(),
                self.params.ranker_epochs,
                progress=(0.8, 1.0),
            )

    def batches(self, mask: np.ndarray) -> Batches:
        """Batches of the sessions whose events are in `mask`."""
        sequences = Sequences.of(self.history.events.take(mask), self.history.rows[mask])
        length = sequences.length
        size = self.params.batch_size
        return Batches(length, [len(length)], size, self.params.seed, sequences.take)

    def _encoder_task(self, index: CovisitationIndex, lr: float) -> EncoderTask:
        """The encoder's task, which compares the articles that were seen so far."""
        articles = np.flatnonzero(index.is_seen(torch.arange(len(index.prior))).numpy())
        return EncoderTask(self.encoder, self.params, index, articles, lr)
