"""The scorer: joins table, encoder and ranker in the graph that is exported.

It takes the events of a session as three int64 tensors (batch, length), oldest first:
- rows of the catalogue; the last row, `nothing`, is padding and unknown article alike.
- kinds: 0 click, 1 cart, 2 order.
- times: ms, -1 if unknown.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.session_recommender.covisitation_index import CANDIDATES, Candidates, CovisitationIndex
from models.session_recommender.encoder import Encoder, Session, newest
from models.session_recommender.features import LENGTH
from models.session_recommender.ranker import Ranker, rank


class Scorer(nn.Module):
    """What is exported: a session to its best `LENGTH` rows and scores.

    The index alone is the trivial baseline.
    """

    vectors: Tensor

    def __init__(
        self,
        index: CovisitationIndex,
        encoder: Encoder | None = None,
        ranker: Ranker | None = None,
    ):
        super().__init__()
        # Its tensors keep the prefix that they have in the ONNX files of earlier versions.
        self.add_module("known", index)
        self.encoder = encoder
        self.ranker = ranker
        if encoder is not None:
            vectors = encoder.vectors(torch.arange(len(index.prior))).detach()
            self.register_buffer("vectors", vectors)

    @property
    def index(self) -> CovisitationIndex:
        """Lookup of neighbours, pairs and articles."""
        index = self.get_submodule("known")
        assert isinstance(index, CovisitationIndex)
        return index

    def forward(self, rows: Tensor, kinds: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
        """int64 (batch, 20) each to int64 and float32 (batch, 20)."""
        session = Session(rows, kinds, times)
        if self.ranker is None:
            _, candidates, scores = self.find_candidates(session, LENGTH)
        else:
            session, candidates, _ = self.find_candidates(session, CANDIDATES)
            scores = rank(self.ranker, self.index, self.vectors, session, candidates)
        best = torch.topk(scores, LENGTH)
        return candidates.rows.gather(1, best.indices), best.values

    def find_candidates(self, session: Session, count: int) -> tuple[Session, Candidates, Tensor]:
        """The session without its unknown articles, its candidates, and their scores before
        ranking."""
        index = self.index
        is_known = index.is_seen(session.rows)
        rows = torch.where(is_known, session.rows, index.nothing)
        # An unknown event gets the time of the next known one, so that the pause before it lasts
        # until that one.
        place = torch.arange(is_known.shape[1], device=is_known.device)
        not_before = place[:, None] <= place
        next_known = torch.where(is_known[:, None] & not_before, place, place.shape[0]).amin(2)
        no_time = torch.full_like(session.times[:, :1], -1)
        times = torch.cat([session.times, no_time], 1).gather(1, next_known)
        session = Session(rows, session.kinds.clamp(min=0), times)
        cosine = None
        if self.encoder is not None:
            cosine = self.encoder_scores(session)
        return session, *index.candidates(rows, cosine, count)

    def encoder_scores(self, session: Session) -> Tensor:
        """The encoder's score of every article, float32 (batch, size)."""
        assert self.encoder is not None
        is_known = session.rows < self.index.nothing
        vectors = F.embedding(session.rows, self.vectors)
        expected, repeat_bias = self.encoder(vectors, session, is_known)
        place = torch.arange(1, is_known.shape[1] + 1, device=is_known.device)
        last = (is_known.long() * place).argmax(1)[:, None, None]
        expected = expected.gather(1, last.expand(-1, 1, expected.shape[2]))[:, 0]
        last_bias = repeat_bias.gather(1, last.expand(-1, 1, repeat_bias.shape[2]))[:, 0]
        bias = last_bias * newest(session.rows, is_known)[:, -1]
        return (expected @ self.vectors.T).scatter_add(1, session.rows, bias)
