"""Choice of the model that is served: table, encoder or ranker."""

import numpy as np
import torch

from models.session_recommender import metrics
from models.session_recommender.blocks import Block
from models.session_recommender.features import LENGTH
from models.session_recommender.ranker import Ranker, rank
from models.session_recommender.scorer import Scorer


def measure(held_out: Block, ranker: Ranker) -> dict[str, np.ndarray]:
    """Recall@20 of each prefix by table, encoder and ranker, the simplest first."""
    hits: dict[str, list[np.ndarray]] = {"table": [], "encoder": [], "ranker": []}
    table = Scorer(held_out.index)
    with torch.no_grad():
        for piece in held_out.pieces():
            labels = piece.labels.numpy()
            hits["table"].append(metrics.recall(table(*piece.session)[0].numpy(), labels))
            best = piece.candidates.rows[:, :LENGTH].numpy()
            hits["encoder"].append(metrics.recall(best, labels))
            scores = rank(ranker, piece.index, piece.vectors, piece.session, piece.candidates)
            hits["ranker"].append(piece.hits(scores))
    return {name: np.concatenate(pieces) for name, pieces in hits.items()}


def choose(hits: dict[str, np.ndarray]) -> str:
    """The simplest model among those that are not worse than the best by more than chance.

    `hits` has 0 or 1 per prefix, for each model, the simplest first. One standard error, here of
    the paired difference, is the rule of Breiman et al., "Classification and Regression Trees",
    1984, 3.4.3.
    """
    best = max(hits.values(), key=np.mean)

    def is_close(own: np.ndarray) -> bool:
        loss = best - own
        return loss.mean() <= loss.std() / np.sqrt(len(own))

    return next(name for name, own in hits.items() if is_close(own))
