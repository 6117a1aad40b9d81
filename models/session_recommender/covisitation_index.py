"""The co-visitation table as a module that finds candidates for a session."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.session_recommender.covisitation import (
    CREDIT,
    FLOOR,
    NEIGHBOURS,
    NEVER,
    PAIRS,
    Covisitation,
)
from models.session_recommender.encoder import ages

COSINE = 0.2
"""Weight of the encoder's score, beside the table's, where candidates are chosen."""
CANDIDATES = 128
"""Articles that the ranker orders."""


class Candidates(NamedTuple):
    """Articles that the ranker has to order, best first by table and encoder."""

    rows: Tensor
    """int64 (batch, CANDIDATES)"""
    table: Tensor
    """float32 (batch, CANDIDATES): log of 1 + co-visitation / `FLOOR`"""
    cosine: Tensor
    """float32 (batch, CANDIDATES): the encoder's score"""


class CovisitationIndex(nn.Module):
    """Lookup of neighbours, pairs and articles by their row.

    It finds candidates, and how each was seen with the session's articles.
    """

    neighbours: Tensor
    weights: Tensor
    pairs: Tensor
    articles: Tensor
    prior: Tensor

    def __init__(self, covisitation: Covisitation):
        super().__init__()
        popularity = torch.from_numpy(covisitation.popularity)
        share = popularity / popularity.max().clamp(min=1e-9)
        prior = torch.where(popularity > 0, 1e-2 * share.log(), NEVER)
        self.register_buffer("prior", prior)
        self.register_buffer("neighbours", torch.from_numpy(covisitation.neighbours).int())
        self.register_buffer("weights", torch.from_numpy(covisitation.weights))
        self.register_buffer("pairs", torch.from_numpy(covisitation.pairs))
        self.register_buffer("articles", torch.from_numpy(covisitation.articles))

    @property
    def nothing(self) -> int:
        """The row, the last one, of padding and of unknown articles."""
        return len(self.prior) - 1

    def is_seen(self, rows: Tensor) -> Tensor:
        """Whether each row is an article that an event had: bool, shaped as `rows`."""
        return self.prior[rows] > NEVER / 2

    def covisitation(self, rows: Tensor, is_known: Tensor) -> tuple[Tensor, Tensor]:
        """Rows that were seen with the session's, and log(1 + co-visitation / FLOOR) of each.

        Both are (batch, m), int64 and float32; rows may repeat.
        """
        near_credit, own_credit = (is_known * base ** ages(is_known).float() for base in CREDIT)
        index = torch.cat([self.neighbours[rows].flatten(1).long(), rows], 1)
        neighbour_credit = (self.weights[rows] * near_credit[..., None]).flatten(1)
        credit = torch.cat([neighbour_credit, own_credit], 1)
        zeros = torch.zeros(rows.shape[0], len(self.prior), device=rows.device)
        total = zeros.scatter_add(1, index, credit)
        return index, torch.log(1 + total.gather(1, index) / FLOOR)

    def candidates(
        self, rows: Tensor, cosine: Tensor | None, count: int
    ) -> tuple[Candidates, Tensor]:
        """The best `count` articles by table, encoder and a little popularity, and their scores.

        `cosine` is the encoder's score of every article, float32 (batch, size). Popularity decides
        only where table and encoder give nothing.
        """
        index, logs = self.covisitation(rows, self.is_seen(rows))
        zeros = torch.zeros(rows.shape[0], len(self.prior), device=rows.device)
        table = zeros.scatter(1, index, logs)
        if cosine is None:
            cosine = torch.zeros_like(table)
        best = torch.topk(table + COSINE * cosine + self.prior, min(count, len(self.prior)))
        chosen = best.indices
        return Candidates(chosen, table.gather(1, chosen), cosine.gather(1, chosen)), best.values

    def evidence(self, rows: Tensor, candidates: Tensor) -> Tensor:
        """How each event's article was seen with each candidate, and whether it is the same.

        Returns float32 (batch, n, CANDIDATES, PAIRS + 1).
        """
        (batch, n) = rows.shape
        k = candidates.shape[1]
        numbers = torch.arange(k, dtype=torch.int32, device=rows.device)
        place = torch.full((batch, len(self.prior)), k, dtype=torch.int32, device=rows.device)
        place = place.scatter(1, candidates, numbers.expand(batch, k))

        def place_of(articles: Tensor) -> Tensor:
            """The candidate that each row is, (batch, m); k if it is none, or nothing."""
            # To write it into the table of all articles would copy the table.
            return place.gather(1, articles).long().masked_fill(articles == self.nothing, k)

        near = place_of(self.neighbours[rows].flatten(1).long()).view(batch, n, NEIGHBOURS, 1)
        together = torch.zeros(batch, n, k + 1, PAIRS, device=rows.device)
        together = together.scatter(2, near.expand(-1, -1, -1, PAIRS), self.pairs[rows].float())
        same = torch.zeros(batch, n, k + 1, device=rows.device)
        same = same.scatter(2, place_of(rows)[..., None], 1.0)
        return torch.cat([together, same[..., None]], -1)[:, :, :k]
