"""Our session encoder in the race: started and trained as the model type does it."""

import copy
import time
from typing import Any

import numpy as np
import torch

from benchmarks.race import ALL, Job
from models.session_recommender import Params, initial_vectors
from models.session_recommender.batches import Batches, Sequences
from models.session_recommender.covisitation import covisit
from models.session_recommender.covisitation_index import CovisitationIndex
from models.session_recommender.encoder import Encoder, Session
from models.session_recommender.features import INPUTS, Catalogue, events
from models.session_recommender.metrics import K, recall
from models.session_recommender.objectives import EncoderTask
from models.session_recommender.scorer import Scorer
from models.spec import Examples


class Ours:
    """The session encoder, started and trained as training.py does it, on all rows."""

    def __init__(self, job: Job):
        rows, self.test = job.load()
        e = events(rows)
        self.params = Params(epochs=job.epochs)
        self.catalogue = Catalogue.of(e)
        self.sequences = Sequences.of(e, self.catalogue.rows(e.aid))
        wall = time.perf_counter()
        cpu = time.process_time()
        self.index = CovisitationIndex(covisit(e, self.catalogue))
        torch.manual_seed(self.params.seed)
        self.encoder = Encoder(self.catalogue.size, self.params.dim, self.params.dropout)
        with torch.no_grad():
            vectors = initial_vectors.propagate(self.index, self.encoder.articles)
            self.encoder.articles.copy_(vectors)
        self.spent = (time.perf_counter() - wall, time.process_time() - cpu)

    def task(self, task_type: type[EncoderTask]) -> Any:
        """A task with the encoder as it is before the first step."""
        encoder = copy.deepcopy(self.encoder)
        articles = np.arange(len(self.catalogue.ids))
        return task_type(encoder, self.params, self.index, articles, self.params.lr)

    def batches(self, steps: int = ALL) -> Batches:
        """One epoch of all sessions or, if that has more steps, of the newest."""
        size = self.params.batch_size
        first = max(0, len(self.sequences.length) - steps * size)
        length = self.sequences.length[first:]

        def take(positions: np.ndarray) -> Session:
            return self.sequences.take(positions + first)

        return Batches(length, [len(length)], size, self.params.seed, take)

    def recalls(self, encoder: Encoder) -> tuple[float, float]:
        """Recall@20 of the encoder alone, and of encoder and table together."""
        return recalls(Scorer(self.index, copy.deepcopy(encoder)).eval(), self.catalogue, self.test)


def recalls(scorer: Scorer, catalogue: Catalogue, test: Examples) -> tuple[float, float]:
    """Recall@20 of the encoder alone, and of encoder and table together."""
    rows, kinds, times = (test.inputs[name] for name in INPUTS)
    session = Session(*map(torch.from_numpy, (catalogue.rows(rows), kinds.clip(min=0), times)))
    alone = []
    both = []
    n = len(catalogue.ids)
    with torch.no_grad():
        for positions in torch.arange(len(test)).split(256):
            piece = Session(*(t[positions] for t in session))
            alone.append(scorer.encoder_scores(piece)[:, :n].topk(min(K, n)).indices)
            both.append(scorer(*piece)[0])
    raw = catalogue.raw()
    recall_alone = recall(raw[torch.cat(alone).numpy()], test.labels)
    recall_both = recall(raw[torch.cat(both).numpy()], test.labels)
    return float(recall_alone.mean()), float(recall_both.mean())
