"""The ranker: orders the candidates that table and encoder name."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.session_recommender.covisitation import ARTICLES, NEVER, PAIRS
from models.session_recommender.covisitation_index import COSINE, Candidates, CovisitationIndex
from models.session_recommender.encoder import PAUSES, Session, ages, pauses
from models.session_recommender.features import LENGTH
from models.session_recommender.schema import EVENT_TYPES


class Ranker(nn.Module):
    """Small set network beside the simple sum: it asks each event of the session about a candidate.

    How event and candidate were seen together goes through one layer. The sum and the maximum over
    the events go through two more, with the numbers of the candidate itself. At the start it
    answers as the table and the encoder do.
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
        is_known: Tensor,
        evidence: Tensor,
        similarity: Tensor,
        articles: Tensor,
        candidates: Candidates,
    ) -> Tensor:
        """Scores of the candidates, float32 (batch, CANDIDATES).

        `evidence` is as of `CovisitationIndex.evidence`. `similarity` is the cosine of each event's
        article with each candidate, (batch, n, CANDIDATES). `articles` is (batch, CANDIDATES,
        ARTICLES).
        """
        age = self.age(ages(is_known))
        context = age + self.kind(session.kinds) + self.pause(pauses(session.times))
        pair = self.pair(torch.cat([evidence, similarity[..., None]], -1))
        hidden = F.gelu(pair + context[:, :, None])
        hidden = self.event(hidden) * is_known[:, :, None, None]
        same = evidence[..., -1] * is_known[..., None]
        repeats = same.sum(1)
        count = is_known.long().sum(1)
        distinct = same.amax(1).sum(1) / count.clamp(min=1)
        whole = torch.cat([self.length(count), distinct[:, None]], 1)[:, None]
        whole = whole.expand(-1, repeats.shape[1], -1)
        single = torch.stack([repeats, candidates.table / 5, candidates.cosine / 5], -1)
        articles = (articles - self.mean) / self.deviation
        pooled = [hidden.sum(1), hidden.amax(1).clamp(min=0)]
        joined = F.gelu(self.first(torch.cat([*pooled, articles, single, whole], -1)))
        joined = joined + F.gelu(self.second(joined))
        correction = self.last(joined)[..., 0]
        return correction + self.mix[0] * candidates.table + self.mix[1] * candidates.cosine


def rank(
    ranker: Ranker,
    index: CovisitationIndex,
    vectors: Tensor,
    session: Session,
    candidates: Candidates,
) -> Tensor:
    """The ranker's scores of the candidates, float32 (batch, CANDIDATES).

    `vectors` (size, dim) are the encoder's.
    """
    rows = candidates.rows
    evidence = index.evidence(session.rows, rows)
    similarity = F.embedding(session.rows, vectors) @ F.embedding(rows, vectors).transpose(1, 2)
    articles = F.embedding(rows, index.articles)
    is_known = index.is_seen(session.rows)
    scores = ranker(session, is_known, evidence, similarity, articles, candidates)
    return torch.where(index.is_seen(rows), scores, NEVER)
