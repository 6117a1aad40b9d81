"""The encoder: a transformer layer and an attention weigh the articles of a session."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.session_recommender.covisitation import NEVER
from models.session_recommender.features import LENGTH
from models.session_recommender.schema import EVENT_TYPES

SCALE = 1 / 0.07
"""Factor of cosines before the softmax: the temperature of CORE."""
PAUSES = 16
"""Buckets of the time until the next event: unknown, below 1 s, and then doubling."""


class Session(NamedTuple):
    """Events of a batch of sessions, each int64 (batch, length)."""

    rows: Tensor
    kinds: Tensor
    times: Tensor

    def lengths(self, nothing: int) -> Tensor:
        """Columns of each session up to its last known event, int64 (batch,); `nothing` is the row
        of padding and unknown articles."""
        number = torch.arange(1, self.rows.shape[1] + 1, device=self.rows.device)
        return ((self.rows < nothing) * number).amax(1)

    def narrow(self, nothing: int) -> "Session":
        """The sessions without the last columns that have a known event in none of them."""
        width = int(self.lengths(nothing).cpu().numpy().max(initial=1))
        return Session(*(t[:, :width] for t in self))

    def widen(self, width: int, nothing: int) -> "Session":
        """The sessions with padding, up to `width` columns."""
        columns = (0, width - self.rows.shape[1])
        padding = (nothing, 0, -1)
        return Session(
            *(F.pad(t, columns, value=value) for t, value in zip(self, padding, strict=True))
        )


def ages(is_known: Tensor) -> Tensor:
    """Number of known events after each one: bool (batch, n) to int64 (batch, n).

    Unknown events are as if absent.
    """
    count = is_known.long().cumsum(1)
    return (count[:, -1:] - count).clamp(max=LENGTH - 1)


def pauses(times: Tensor) -> Tensor:
    """Bucket of the time until the next event, int64 (batch, length).

    It is 0 for the last event and where a time is unknown.
    """
    before = times[:, :-1]
    after = times[:, 1:]
    seconds = (after - before).clamp(min=0) / 1000.0
    bucket = torch.log2(seconds + 1.0).long().clamp(max=PAUSES - 2) + 1
    return F.pad(torch.where((before >= 0) & (after >= 0), bucket, 0), (0, 1))


class Attention(nn.Module):
    """Causal self-attention of two heads.

    Only the distance of two events matters, not their place in the session.
    """

    HEADS = 2

    def __init__(self, dim: int, dropout: float):
        super().__init__()
        self.before = nn.LayerNorm(dim)
        self.after = nn.LayerNorm(dim)
        self.project = nn.Linear(dim, 3 * dim)
        self.join = nn.Linear(dim, dim)
        self.distance = nn.Parameter(torch.zeros(self.HEADS, LENGTH))
        self.wide = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, visible: Tensor, distance: Tensor) -> Tensor:
        """float32 (batch, n, dim), bool and int64 (batch, n, n) to float32 (batch, n, dim)."""
        batch, n, dim = x.shape
        width = dim // self.HEADS
        projected = self.project(self.before(x)).view(batch, n, 3, self.HEADS, width)
        q, k, v = projected.permute(2, 0, 3, 1, 4)
        bias = self.distance[:, distance].transpose(0, 1)
        logits = q @ k.transpose(2, 3) * width**-0.5 + bias
        mixed = logits.masked_fill(~visible[:, None], NEVER).softmax(-1) @ v
        x = x + self.dropout(self.join(mixed.transpose(1, 2).reshape(batch, n, dim)))
        return x + self.dropout(self.wide(self.after(x)))


class Encoder(nn.Module):
    """A session as a weighted mean of its articles' vectors, so that both live in one space.

    Hou et al., "CORE: Simple and Effective Session-based Recommendation within Consistent
    Representation Space", 2022. The weights come from a transformer and an additive attention as in
    Liu et al., "STAMP", 2018. An article that the session had already gets a learnt bias, because
    it returns for other reasons than a new one comes.
    """

    def __init__(self, size: int, dim: int, dropout: float = 0.4):
        super().__init__()
        self.articles = nn.Parameter(torch.randn(size, dim) * dim**-0.5)
        self.kind = nn.Embedding(len(EVENT_TYPES), dim)
        self.attention = Attention(dim, dropout)
        self.norm = nn.LayerNorm(dim)
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.age = nn.Embedding(LENGTH, dim)
        self.pause = nn.Embedding(PAUSES, dim)
        self.weight = nn.Linear(dim, 1, bias=False)
        self.fade = nn.Parameter(-0.4 * torch.arange(float(LENGTH)))
        self.again = nn.Linear(dim, 1)
        self.again_age = nn.Parameter(torch.zeros(LENGTH))
        self.dropout = nn.Dropout(dropout)
        for table in (self.kind, self.age, self.pause):
            nn.init.zeros_(table.weight)

    def vectors(self, rows: Tensor) -> Tensor:
        """Unit vectors of articles: int64 (...) to float32 (..., dim)."""
        return F.normalize(F.embedding(rows, self.articles), dim=-1)

    def forward(self, vectors: Tensor, session: Session, is_known: Tensor) -> tuple[Tensor, Tensor]:
        """What is expected after each event, given the `LENGTH` events up to it.

        Takes unit vectors (batch, n, dim) and which of them are known, bool (batch, n). Returns
        session vectors of length `SCALE` (batch, n, dim). Beside them it returns the bias of each
        article that the session had, as of each event (batch, now, earlier).
        """
        place = is_known.long().cumsum(1)
        distance = place[:, :, None] - place[:, None]
        n = is_known.shape[1]
        before = torch.ones(n, n, dtype=torch.bool, device=is_known.device).tril()
        visible = before & is_known[:, None] & (distance < LENGTH)
        distance = distance.clamp(0, LENGTH - 1)
        vectors = self.dropout(vectors * is_known[..., None])
        itself = torch.eye(n, dtype=torch.bool, device=is_known.device)
        hidden = self.attention(vectors * 8 + self.kind(session.kinds), visible | itself, distance)
        hidden = self.norm(hidden)
        pause = self.pause(pauses(session.times))[:, None] * ~itself[..., None]
        key = self.key(hidden + self.kind(session.kinds))[:, None] + self.age(distance) + pause
        score = self.weight(torch.tanh(self.query(hidden)[:, :, None] + key))[..., 0]
        logits = score + self.fade[distance]
        share = logits.masked_fill(~visible, NEVER).softmax(-1)
        expected = F.normalize(share @ vectors, dim=-1) * SCALE
        return expected, self.again(hidden) + self.again_age[distance]


def newest(rows: Tensor, is_known: Tensor) -> Tensor:
    """Whether no later event up to `now` has the same article: bool (batch, now, earlier)."""
    up_to = torch.ones(rows.shape[1], rows.shape[1], dtype=torch.bool, device=rows.device).tril()
    later = (rows[:, :, None] == rows[:, None]) & ~up_to
    return up_to & is_known[:, None] & ~(later[:, None] & up_to[None, :, None]).any(-1)
