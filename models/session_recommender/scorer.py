"""The networks: an encoder that finds candidates, a ranker that orders them, and the scorer that
joins both for export.

All take the events of a session as three int64 tensors (batch, length), oldest first: rows of the
catalogue (the last row, `nothing`, is padding and unknown article alike), kinds (0 click, 1 cart, 2
order) and times (ms, -1 if unknown).
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.session_recommender.covisitation import (
    ARTICLES,
    CREDIT,
    FLOOR,
    NEIGHBOURS,
    NEVER,
    PAIRS,
    Covisitation,
)
from models.session_recommender.encoder import PAUSES, Encoder, Session, ages, newest, pauses
from models.session_recommender.features import LENGTH
from models.session_recommender.schema import EVENT_TYPES

COSINE = 0.2
"""Of the encoder's score, beside the table's, where candidates are chosen."""
CANDIDATES = 128
"""Articles that the ranker orders."""


class Candidates(NamedTuple):
    """The articles that a session's ranker has to order, best first by what the table and the
    encoder say."""

    rows: Tensor
    """int64 (batch, CANDIDATES)"""
    table: Tensor
    """float32 (batch, CANDIDATES): log of 1 + co-visitation / `FLOOR`"""
    cosine: Tensor
    """float32 (batch, CANDIDATES): the encoder's score"""


class Known(nn.Module):
    """What is known of articles and pairs: finds candidates, and how each was seen with the
    session's articles."""

    neighbours: Tensor
    weights: Tensor
    pairs: Tensor
    articles: Tensor
    prior: Tensor

    def __init__(self, covisitation: Covisitation):
        super().__init__()
        popularity = torch.from_numpy(covisitation.popularity)
        prior = torch.where(
            popularity > 0, 1e-2 * (popularity / popularity.max().clamp(min=1e-9)).log(), NEVER
        )
        self.register_buffer("prior", prior)
        self.register_buffer("neighbours", torch.from_numpy(covisitation.neighbours).int())
        self.register_buffer("weights", torch.from_numpy(covisitation.weights))
        self.register_buffer("pairs", torch.from_numpy(covisitation.pairs))
        self.register_buffer("articles", torch.from_numpy(covisitation.articles))

    def known(self, rows: Tensor) -> Tensor:
        """Which are articles that have been seen."""
        return self.prior[rows] > NEVER / 2

    def covisitation(self, rows: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """Rows seen with the session's, with repeats, int64 (batch, m), and log(1 + co-visitation /
        FLOOR) of each."""
        near, own = (known * base ** ages(known).float() for base in CREDIT)
        index = torch.cat([self.neighbours[rows].flatten(1).long(), rows], 1)
        credit = torch.cat([(self.weights[rows] * near[..., None]).flatten(1), own], 1)
        total = torch.zeros(rows.shape[0], len(self.prior), device=rows.device).scatter_add(
            1, index, credit
        )
        return index, torch.log(1 + total.gather(1, index) / FLOOR)

    def candidates(
        self, rows: Tensor, cosine: Tensor | None, count: int
    ) -> tuple[Candidates, Tensor]:
        """The best `count` by table, encoder (float32 (batch, size)) and a little popularity; and
        their scores.

        Popularity decides only where nothing else is known.
        """
        index, seen = self.covisitation(rows, self.known(rows))
        table = torch.zeros(rows.shape[0], len(self.prior), device=rows.device).scatter(
            1, index, seen
        )
        cosine = torch.zeros_like(table) if cosine is None else cosine
        best = torch.topk(table + COSINE * cosine + self.prior, min(count, len(self.prior)))
        chosen = best.indices
        return Candidates(chosen, table.gather(1, chosen), cosine.gather(1, chosen)), best.values

    def evidence(self, rows: Tensor, candidates: Tensor) -> Tensor:
        """How each event's article was seen with each candidate, and whether it is the same:
        float32 (batch, n, CANDIDATES, PAIRS + 1)."""
        (batch, n) = rows.shape
        k = candidates.shape[1]
        place = torch.full((batch, len(self.prior)), k, device=rows.device)
        place = place.scatter(1, candidates, torch.arange(k, device=rows.device).expand(batch, k))
        place[:, -1] = k
        near = place.gather(1, self.neighbours[rows].flatten(1).long()).view(
            batch, n, NEIGHBOURS, 1
        )
        together = torch.zeros(batch, n, k + 1, PAIRS, device=rows.device)
        together = together.scatter(2, near.expand(-1, -1, -1, PAIRS), self.pairs[rows].float())
        own = torch.zeros(batch, n, k + 1, device=rows.device).scatter(
            2, place.gather(1, rows)[..., None], 1.0
        )
        return torch.cat([together, own[..., None]], -1)[:, :, :k]


class Ranker(nn.Module):
    """Orders candidates by what each event of the session says of them: a small set network beside
    the simple sum.

    For each event and candidate, how they were seen together goes through one layer; the sum and
    the maximum over the events go, with what is known of the candidate itself, through two more. At
    the start it answers as the table and the encoder do.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, articles: np.ndarray, width: int = 32, wide: int = 64):
        super().__init__()
        self.register_buffer("mean", torch.from_numpy(articles.mean(0)))
        self.register_buffer("deviation", torch.from_numpy(articles.std(0).clip(min=1e-3)))
        self.pair = nn.Linear(PAIRS + 2, width)
        self.age = nn.Embedding(LENGTH, width)
        self.kind = nn.Embedding(len(EVENT_TYPES), width)
        self.pause = nn.Embedding(PAUSES, width)
        self.length = nn.Embedding(LENGTH + 1, 8)
        self.event = nn.Linear(width, width)
        self.first = nn.Linear(2 * width + ARTICLES + 4 + 8, wide)
        self.second = nn.Linear(wide, wide)
        self.last = nn.Linear(wide, 1)
        self.mix = nn.Parameter(torch.tensor([1.0, COSINE]))
        nn.init.normal_(self.last.weight, std=1e-3)
        nn.init.zeros_(self.last.bias)

    def forward(
        self,
        session: Session,
        known: Tensor,
        evidence: Tensor,
        alike: Tensor,
        articles: Tensor,
        found: Candidates,
    ) -> Tensor:
        """Scores of the candidates, float32 (batch, CANDIDATES).

        `evidence` is as of `Known.evidence`, `alike` the cosine of each event's article with each
        candidate (batch, n, CANDIDATES), `articles` (batch, CANDIDATES, ARTICLES).
        """
        context = (
            self.age(ages(known)) + self.kind(session.kinds) + self.pause(pauses(session.times))
        )
        hidden = F.gelu(
            self.pair(torch.cat([evidence, alike[..., None]], -1)) + context[:, :, None]
        )
        hidden = self.event(hidden) * known[:, :, None, None]
        own = (evidence[..., -1] * known[..., None]).sum(1)
        count = known.long().sum(1)
        distinct = (evidence[..., -1] * known[..., None]).amax(1).sum(1) / count.clamp(min=1)
        whole = torch.cat([self.length(count), distinct[:, None]], 1)[:, None].expand(
            -1, own.shape[1], -1
        )
        single = torch.stack([own, found.table / 5, found.cosine / 5], -1)
        articles = (articles - self.mean) / self.deviation
        joined = F.gelu(
            self.first(
                torch.cat([hidden.sum(1), hidden.amax(1).clamp(min=0), articles, single, whole], -1)
            )
        )
        joined = joined + F.gelu(self.second(joined))
        return self.last(joined)[..., 0] + self.mix[0] * found.table + self.mix[1] * found.cosine


def rank(
    ranker: Ranker, known: Known, vectors: Tensor, session: Session, found: Candidates
) -> Tensor:
    """The ranker's scores of what was found, float32 (batch, CANDIDATES); `vectors` (size, dim) are
    the encoder's."""
    evidence = known.evidence(session.rows, found.rows)
    alike = F.embedding(session.rows, vectors) @ F.embedding(found.rows, vectors).transpose(1, 2)
    articles = F.embedding(found.rows, known.articles)
    scores = ranker(session, known.known(session.rows), evidence, alike, articles, found)
    return torch.where(known.known(found.rows), scores, NEVER)


class Scorer(nn.Module):
    """What is exported: a session to its best `LENGTH` rows and scores. The table alone is the
    trivial baseline."""

    vectors: Tensor

    def __init__(self, known: Known, encoder: Encoder | None = None, ranker: Ranker | None = None):
        super().__init__()
        self.known = known
        self.encoder = encoder
        self.ranker = ranker
        if encoder is not None:
            self.register_buffer(
                "vectors", encoder.vectors(torch.arange(len(known.prior))).detach()
            )

    def forward(self, rows: Tensor, kinds: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
        """int64 (batch, 20) each to int64 and float32 (batch, 20)."""
        session, found, scores = self.find(
            Session(rows, kinds, times), LENGTH if self.ranker is None else CANDIDATES
        )
        if self.ranker is not None:
            scores = rank(self.ranker, self.known, self.vectors, session, found)
        best = torch.topk(scores, LENGTH)
        return found.rows.gather(1, best.indices), best.values

    def find(self, session: Session, count: int) -> tuple[Session, Candidates, Tensor]:
        """The session without what is not known, its candidates, and their scores before
        ranking."""
        known = self.known.known(session.rows)
        rows = torch.where(known, session.rows, len(self.known.prior) - 1)
        # An unknown event gets the time of the next known one, so that the pause before it lasts
        # until that one.
        place = torch.arange(known.shape[1], device=known.device)
        at = torch.where(known[:, None] & (place[:, None] <= place), place, len(place)).amin(2)
        times = torch.cat([session.times, torch.full_like(session.times[:, :1], -1)], 1).gather(
            1, at
        )
        session = Session(rows, session.kinds.clamp(min=0), times)
        cosine = None if self.encoder is None else self._cosine(session)
        return session, *self.known.candidates(rows, cosine, count)

    def _cosine(self, session: Session) -> Tensor:
        """The encoder's score of every article, float32 (batch, size)."""
        assert self.encoder is not None
        known = session.rows < len(self.known.prior) - 1
        expected, again = self.encoder(F.embedding(session.rows, self.vectors), session, known)
        last = (known.long() * torch.arange(1, known.shape[1] + 1, device=known.device)).argmax(1)[
            :, None, None
        ]
        expected = expected.gather(1, last.expand(-1, 1, expected.shape[2]))[:, 0]
        bias = (
            again.gather(1, last.expand(-1, 1, again.shape[2]))[:, 0]
            * newest(session.rows, known)[:, -1]
        )
        return (expected @ self.vectors.T).scatter_add(1, session.rows, bias)
