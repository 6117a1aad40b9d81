"""The networks: an encoder that finds candidates, a ranker that orders them, and the scorer that joins both for export.

All take the events of a session as three int64 tensors (batch, length), oldest first: rows of the catalogue (the last
row, `nothing`, is padding and unknown article alike), kinds (0 click, 1 cart, 2 order) and times (ms, -1 if unknown).
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.session_recommender.features import (
    ARTICLES,
    CREDIT,
    FLOOR,
    LENGTH,
    NEIGHBOURS,
    NEVER,
    PAIRS,
    Covisitation,
)  # fmt: skip
from models.session_recommender.schema import EVENT_TYPES

SCALE = 1 / 0.07
"""Of cosines, before the softmax: the temperature of CORE."""
COSINE = 0.2
"""Of the encoder's score, beside the table's, where candidates are chosen."""
CANDIDATES = 128
"""Articles that the ranker orders."""
PAUSES = 16
"""Buckets of the time until the next event: unknown, below 1 s, and then doubling."""


class Session(NamedTuple):
    """Events of a batch of sessions, each int64 (batch, length)."""

    rows: Tensor
    kinds: Tensor
    times: Tensor


def ages(known: Tensor) -> Tensor:
    """Known events that came after each one: bool (batch, n) to int64 (batch, n); unknown ones are as if absent."""
    count = known.long().cumsum(1)
    return (count[:, -1:] - count).clamp(max=LENGTH - 1)


def pauses(times: Tensor) -> Tensor:
    """Bucket of the time until the next event, int64 (batch, length); 0 for the last and where a time is unknown."""
    before, after = times[:, :-1], times[:, 1:]
    bucket = torch.log2(((after - before).clamp(min=0) / 1000.0) + 1.0).long().clamp(max=PAUSES - 2) + 1
    return F.pad(torch.where((before >= 0) & (after >= 0), bucket, 0), (0, 1))


class Attention(nn.Module):
    """Causal self-attention of two heads in which only the distance of two events matters, not where they stand."""

    HEADS = 2

    def __init__(self, dim: int, dropout: float):
        super().__init__()
        self.before, self.after = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.project, self.join = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.distance = nn.Parameter(torch.zeros(self.HEADS, LENGTH))
        self.wide = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, visible: Tensor, distance: Tensor) -> Tensor:
        """float32 (batch, n, dim), bool (batch, n, n) and int64 (batch, n, n) to float32 (batch, n, dim)."""
        batch, n, dim = x.shape
        q, k, v = self.project(self.before(x)).view(batch, n, 3, self.HEADS, dim // self.HEADS).permute(2, 0, 3, 1, 4)
        logits = q @ k.transpose(2, 3) * (dim // self.HEADS) ** -0.5 + self.distance[:, distance].transpose(0, 1)
        mixed = logits.masked_fill(~visible[:, None], NEVER).softmax(-1) @ v
        x = x + self.dropout(self.join(mixed.transpose(1, 2).reshape(batch, n, dim)))
        return x + self.dropout(self.wide(self.after(x)))


class Encoder(nn.Module):
    """A session as a weighted mean of its articles' vectors, so that both live in one space.

    Hou et al., "CORE: Simple and Effective Session-based Recommendation within Consistent Representation Space", 2022;
    the weights come from a transformer and an additive attention as in Liu et al., "STAMP", 2018. An article that was
    seen already gets a bias that is learnt, because it returns for other reasons than a new one comes.
    """

    def __init__(self, size: int, dim: int, dropout: float = 0.4):
        super().__init__()
        self.articles = nn.Parameter(torch.randn(size, dim) * dim**-0.5)
        self.kind = nn.Embedding(len(EVENT_TYPES), dim)
        self.attention = Attention(dim, dropout)
        self.norm = nn.LayerNorm(dim)
        self.query, self.key = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.age, self.pause = nn.Embedding(LENGTH, dim), nn.Embedding(PAUSES, dim)
        self.weight = nn.Linear(dim, 1, bias=False)
        self.fade = nn.Parameter(-0.4 * torch.arange(float(LENGTH)))
        self.again, self.again_age = nn.Linear(dim, 1), nn.Parameter(torch.zeros(LENGTH))
        self.dropout = nn.Dropout(dropout)
        for table in (self.kind, self.age, self.pause):
            nn.init.zeros_(table.weight)

    def vectors(self, rows: Tensor) -> Tensor:
        """Unit vectors of articles: int64 (...) to float32 (..., dim)."""
        return F.normalize(F.embedding(rows, self.articles), dim=-1)

    def forward(self, vectors: Tensor, session: Session, known: Tensor) -> tuple[Tensor, Tensor]:
        """What is expected after each event, given the `LENGTH` events up to it.

        Takes unit vectors (batch, n, dim) and which are known, bool (batch, n). Returns session vectors of length
        `SCALE` (batch, n, dim), and the bias of each article that was seen, as of each event (batch, now, seen).
        """
        place = known.long().cumsum(1)
        distance = place[:, :, None] - place[:, None]
        before = torch.ones_like(known[0][:, None] & known[0][None]).tril()
        visible = before & known[:, None] & (distance < LENGTH)
        distance = distance.clamp(0, LENGTH - 1)
        vectors = self.dropout(vectors * known[..., None])
        itself = torch.eye(len(before), dtype=torch.bool, device=before.device)
        hidden = self.attention(vectors * 8 + self.kind(session.kinds), visible | itself, distance)
        hidden = self.norm(hidden)
        pause = self.pause(pauses(session.times))[:, None] * ~itself[..., None]
        key = self.key(hidden + self.kind(session.kinds))[:, None] + self.age(distance) + pause
        logits = self.weight(torch.tanh(self.query(hidden)[:, :, None] + key))[..., 0] + self.fade[distance]
        share = logits.masked_fill(~visible, NEVER).softmax(-1)
        return F.normalize(share @ vectors, dim=-1) * SCALE, self.again(hidden) + self.again_age[distance]


def newest(rows: Tensor, known: Tensor) -> Tensor:
    """Whether no later event up to `now` has the same article: bool (batch, now, seen)."""
    up_to = torch.ones(rows.shape[1], rows.shape[1], dtype=torch.bool, device=rows.device).tril()
    later = (rows[:, :, None] == rows[:, None]) & ~up_to
    return up_to & known[:, None] & ~(later[:, None] & up_to[None, :, None]).any(-1)


class Candidates(NamedTuple):
    """The articles that a session's ranker has to order, best first by what the table and the encoder say."""

    rows: Tensor
    """int64 (batch, CANDIDATES)"""
    table: Tensor
    """float32 (batch, CANDIDATES): log of 1 + co-visitation / `FLOOR`"""
    cosine: Tensor
    """float32 (batch, CANDIDATES): the encoder's score"""


class Known(nn.Module):
    """What is known of articles and pairs: finds candidates, and how each was seen with the session's articles."""

    neighbours: Tensor
    weights: Tensor
    pairs: Tensor
    articles: Tensor
    prior: Tensor

    def __init__(self, covisitation: Covisitation):
        super().__init__()
        popularity = torch.from_numpy(covisitation.popularity)
        prior = torch.where(popularity > 0, 1e-2 * (popularity / popularity.max().clamp(min=1e-9)).log(), NEVER)
        self.register_buffer("prior", prior)
        self.register_buffer("neighbours", torch.from_numpy(covisitation.neighbours).int())
        self.register_buffer("weights", torch.from_numpy(covisitation.weights))
        self.register_buffer("pairs", torch.from_numpy(covisitation.pairs))
        self.register_buffer("articles", torch.from_numpy(covisitation.articles))

    def known(self, rows: Tensor) -> Tensor:
        """Which are articles that have been seen."""
        return self.prior[rows] > NEVER / 2

    def covisitation(self, rows: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """Rows seen with the session's, with repeats, int64 (batch, m), and log(1 + co-visitation / FLOOR) of each."""
        near, own = (known * base ** ages(known).float() for base in CREDIT)
        index = torch.cat([self.neighbours[rows].flatten(1).long(), rows], 1)
        credit = torch.cat([(self.weights[rows] * near[..., None]).flatten(1), own], 1)
        total = torch.zeros(rows.shape[0], len(self.prior), device=rows.device).scatter_add(1, index, credit)
        return index, torch.log(1 + total.gather(1, index) / FLOOR)

    def candidates(self, rows: Tensor, cosine: Tensor | None, count: int) -> tuple[Candidates, Tensor]:
        """The best `count` by table, encoder (float32 (batch, size)) and a little popularity; and their scores.

        Popularity decides only where nothing else is known.
        """
        index, seen = self.covisitation(rows, self.known(rows))
        table = torch.zeros(rows.shape[0], len(self.prior), device=rows.device).scatter(1, index, seen)
        cosine = torch.zeros_like(table) if cosine is None else cosine
        best = torch.topk(table + COSINE * cosine + self.prior, min(count, len(self.prior)))
        chosen = best.indices
        return Candidates(chosen, table.gather(1, chosen), cosine.gather(1, chosen)), best.values

    def evidence(self, rows: Tensor, candidates: Tensor) -> Tensor:
        """How each event's article was seen with each candidate, and whether it is the same:
        float32 (batch, n, CANDIDATES, PAIRS + 1)."""
        (batch, n), k = rows.shape, candidates.shape[1]
        place = torch.full((batch, len(self.prior)), k, device=rows.device)
        place = place.scatter(1, candidates, torch.arange(k, device=rows.device).expand(batch, k))
        place[:, -1] = k
        near = place.gather(1, self.neighbours[rows].flatten(1).long()).view(batch, n, NEIGHBOURS, 1)
        together = torch.zeros(batch, n, k + 1, PAIRS, device=rows.device)
        together = together.scatter(2, near.expand(-1, -1, -1, PAIRS), self.pairs[rows].float())
        own = torch.zeros(batch, n, k + 1, device=rows.device).scatter(2, place.gather(1, rows)[..., None], 1.0)
        return torch.cat([together, own[..., None]], -1)[:, :, :k]


class Ranker(nn.Module):
    """Orders candidates by what each event of the session says of them: a small set network beside the simple sum.

    For each event and candidate, how they were seen together goes through one layer; the sum and the maximum over the
    events go, with what is known of the candidate itself, through two more. At the start it answers as the table and
    the encoder do.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, articles: np.ndarray, width: int = 32, wide: int = 64):
        super().__init__()
        self.register_buffer("mean", torch.from_numpy(articles.mean(0)))
        self.register_buffer("deviation", torch.from_numpy(articles.std(0).clip(min=1e-3)))
        self.pair = nn.Linear(PAIRS + 2, width)
        self.age, self.kind = nn.Embedding(LENGTH, width), nn.Embedding(len(EVENT_TYPES), width)
        self.pause, self.length = nn.Embedding(PAUSES, width), nn.Embedding(LENGTH + 1, 8)
        self.event = nn.Linear(width, width)
        self.first = nn.Linear(2 * width + ARTICLES + 4 + 8, wide)
        self.second, self.last = nn.Linear(wide, wide), nn.Linear(wide, 1)
        self.mix = nn.Parameter(torch.tensor([1.0, COSINE]))
        nn.init.normal_(self.last.weight, std=1e-3)
        nn.init.zeros_(self.last.bias)

    def forward(
        self, session: Session, known: Tensor, evidence: Tensor, alike: Tensor, articles: Tensor, found: Candidates
    ) -> Tensor:
        """Scores of the candidates, float32 (batch, CANDIDATES).

        `evidence` is as of `Known.evidence`, `alike` the cosine of each event's article with each candidate (batch, n,
        CANDIDATES), `articles` (batch, CANDIDATES, ARTICLES).
        """
        context = self.age(ages(known)) + self.kind(session.kinds) + self.pause(pauses(session.times))
        hidden = F.gelu(self.pair(torch.cat([evidence, alike[..., None]], -1)) + context[:, :, None])
        hidden = self.event(hidden) * known[:, :, None, None]
        own = (evidence[..., -1] * known[..., None]).sum(1)
        count = known.long().sum(1)
        distinct = (evidence[..., -1] * known[..., None]).amax(1).sum(1) / count.clamp(min=1)
        whole = torch.cat([self.length(count), distinct[:, None]], 1)[:, None].expand(-1, own.shape[1], -1)
        single = torch.stack([own, found.table / 5, found.cosine / 5], -1)
        articles = (articles - self.mean) / self.deviation
        joined = F.gelu(
            self.first(torch.cat([hidden.sum(1), hidden.amax(1).clamp(min=0), articles, single, whole], -1))
        )
        joined = joined + F.gelu(self.second(joined))
        return self.last(joined)[..., 0] + self.mix[0] * found.table + self.mix[1] * found.cosine


def rank(ranker: Ranker, known: Known, vectors: Tensor, session: Session, found: Candidates) -> Tensor:
    """The ranker's scores of what was found, float32 (batch, CANDIDATES); `vectors` (size, dim) are the encoder's."""
    evidence = known.evidence(session.rows, found.rows)
    alike = F.embedding(session.rows, vectors) @ F.embedding(found.rows, vectors).transpose(1, 2)
    articles = F.embedding(found.rows, known.articles)
    scores = ranker(session, known.known(session.rows), evidence, alike, articles, found)
    return torch.where(known.known(found.rows), scores, NEVER)


class Scorer(nn.Module):
    """What is exported: a session to its best `LENGTH` rows and scores. The table alone is the trivial baseline."""

    vectors: Tensor

    def __init__(self, known: Known, encoder: Encoder | None = None, ranker: Ranker | None = None):
        super().__init__()
        self.known, self.encoder, self.ranker = known, encoder, ranker
        if encoder is not None:
            self.register_buffer("vectors", encoder.vectors(torch.arange(len(known.prior))).detach())

    def forward(self, rows: Tensor, kinds: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
        """int64 (batch, 20) each to int64 and float32 (batch, 20)."""
        session, found, scores = self.find(Session(rows, kinds, times), LENGTH if self.ranker is None else CANDIDATES)
        if self.ranker is not None:
            scores = rank(self.ranker, self.known, self.vectors, session, found)
        best = torch.topk(scores, LENGTH)
        return found.rows.gather(1, best.indices), best.values

    def find(self, session: Session, count: int) -> tuple[Session, Candidates, Tensor]:
        """The session without what is not known, its candidates, and their scores before ranking."""
        known = self.known.known(session.rows)
        rows = torch.where(known, session.rows, len(self.known.prior) - 1)
        # An unknown event gets the time of the next known one, so that the pause before it lasts until that one.
        place = torch.arange(known.shape[1], device=known.device)
        at = torch.where(known[:, None] & (place[:, None] <= place), place, len(place)).amin(2)
        times = torch.cat([session.times, torch.full_like(session.times[:, :1], -1)], 1).gather(1, at)
        session = Session(rows, session.kinds.clamp(min=0), times)
        cosine = None if self.encoder is None else self._cosine(session)
        return session, *self.known.candidates(rows, cosine, count)

    def _cosine(self, session: Session) -> Tensor:
        """The encoder's score of every article, float32 (batch, size)."""
        assert self.encoder is not None
        known = session.rows < len(self.known.prior) - 1
        expected, again = self.encoder(F.embedding(session.rows, self.vectors), session, known)
        last = (known.long() * torch.arange(1, known.shape[1] + 1, device=known.device)).argmax(1)[:, None, None]
        expected = expected.gather(1, last.expand(-1, 1, expected.shape[2]))[:, 0]
        bias = again.gather(1, last.expand(-1, 1, again.shape[2]))[:, 0] * newest(session.rows, known)[:, -1]
        return (expected @ self.vectors.T).scatter_add(1, session.rows, bias)
