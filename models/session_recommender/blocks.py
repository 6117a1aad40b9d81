"""Blocks of the newest sessions: answered first, then learnt from."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from models.session_recommender import metrics
from models.session_recommender.batches import Batches
from models.session_recommender.covisitation_index import CANDIDATES, Candidates, CovisitationIndex
from models.session_recommender.encoder import Session
from models.session_recommender.features import LENGTH, Events
from models.session_recommender.history import Prefixes
from models.session_recommender.scorer import Scorer

PIECE = 256
"""Prefixes that are answered at a time."""


@dataclass(frozen=True)
class Block:
    """`n` prefixes of a stretch of time, as table and encoder answered them just before it."""

    index: CovisitationIndex
    vectors: Tensor
    session: Session
    candidates: Candidates
    labels: Tensor
    """int64 (n,), rows"""
    kinds: Tensor
    """int64 (n,), of the labels' events"""

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, positions: Tensor | np.ndarray) -> "Block":
        """The prefixes at `positions`."""
        session = Session(*(t[positions] for t in self.session))
        candidates = Candidates(*(t[positions] for t in self.candidates))
        labels = self.labels[positions]
        return Block(self.index, self.vectors, session, candidates, labels, self.kinds[positions])

    def pieces(self) -> list["Block"]:
        """The prefixes, `PIECE` at a time, the shortest first."""
        return [self.take(positions).narrow() for positions in by_length(self.lengths())]

    def lengths(self) -> Tensor:
        """Columns of each prefix up to its last known event, int64 (n,)."""
        return self.session.lengths(self.index.nothing)

    def narrow(self) -> "Block":
        """The same prefixes without the columns that are padding in all of them."""
        return replace(self, session=self.session.narrow(self.index.nothing))

    def answerable(self) -> "Block":
        """The prefixes whose label is a known article and among the candidates."""
        is_candidate = (self.candidates.rows == self.labels[:, None]).any(1)
        is_answerable = is_candidate & self.index.is_seen(self.labels)
        return self.take(is_answerable.nonzero()[:, 0])

    def hits(self, scores: Tensor) -> np.ndarray:
        """1 where the label is among the 20 candidates with the highest scores, else 0."""
        best = self.candidates.rows.gather(1, scores.topk(LENGTH).indices)
        return metrics.recall(best.numpy(), self.labels.numpy())


def answer(scorer: Scorer, prefixes: Prefixes) -> Block:
    """Candidates of `scorer` for each prefix."""
    nothing = scorer.index.nothing
    width = prefixes.session.rows.shape[1]
    pieces = by_length(prefixes.session.lengths(nothing))
    sessions = []
    candidates = []
    with torch.no_grad():
        for positions in pieces:
            asked = prefixes.take(positions).session.narrow(nothing)
            session, of_piece, _ = scorer.find_candidates(asked, CANDIDATES)
            sessions.append(session.widen(width, nothing))
            candidates.append(of_piece)
    back = torch.cat(pieces).argsort()
    return Block(
        scorer.index,
        scorer.vectors,
        Session(*(torch.cat(t)[back] for t in zip(*sessions, strict=True))),
        Candidates(*(torch.cat(t)[back] for t in zip(*candidates, strict=True))),
        prefixes.labels,
        prefixes.kinds,
    )


def by_length(lengths: Tensor) -> tuple[Tensor, ...]:
    """Positions of prefixes of these `lengths`, int64 (n,): `PIECE` at a time, the shortest first,
    so that most pieces are narrow."""
    return lengths.argsort(stable=True).split(PIECE)


def ranker_batches(blocks: list[Block], size: int, seed: int) -> Batches:
    """Batches of prefixes, each of one block."""
    first = np.cumsum([0, *map(len, blocks)])

    def take(positions: np.ndarray) -> Block:
        number = int(np.searchsorted(first, positions[0], "right")) - 1
        return blocks[number].take(positions - first[number]).narrow()

    lengths = torch.cat([block.lengths() for block in blocks]).numpy()
    return Batches(lengths, [len(block) for block in blocks], size, seed, take)


def numbers(e: Events, is_new: np.ndarray | None, share: float, count: int) -> np.ndarray:
    """Block of each event's session, int64 (events,): 1 to `count` by its start, 0 for older ones.

    The blocks have the sessions that `is_new` marks, bool (events,), or, without it, the newest
    `share` of all. Sessions of one event do not count, and of too few new ones the blocks have the
    newest of all, too.
    """
    starts = e.started()
    is_counted = e.position == 1
    counted = np.sort(starts[is_counted])
    if is_new is None:
        is_new = starts >= counted[min(int(len(counted) * (1 - share)), len(counted) - 1)]
    if (is_new & is_counted).sum() < count:
        newest = min(len(counted), max(count, int(len(counted) * share)))
        is_new = is_new | (starts >= counted[-newest])
    new = np.sort(starts[is_new & is_counted])
    positions = np.linspace(0, len(new), count + 1).astype(int)[:-1]
    limits = np.unique(new[positions])
    return np.where(is_new, np.searchsorted(limits, starts, "right"), 0)
