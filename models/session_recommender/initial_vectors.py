"""Vectors that articles start from: along the co-visitation table, or at their neighbours."""

import torch
from torch import Tensor
from torch.nn import functional as F

from models.session_recommender.covisitation_index import CovisitationIndex
from models.session_recommender.encoder import Encoder


def propagate(index: CovisitationIndex, drawn: Tensor) -> Tensor:
    """Unit vectors, float32 (size, dim), so that articles seen together lie near each other.

    They are the random ones, `drawn`, after one and two steps along the co-visitation, summed. Chen
    et al., "Fast and Accurate Network Embeddings via Very Sparse Random Projection" (FastRP), 2019.
    An article that was seen with no other keeps its drawn vector.
    """
    size, count = index.neighbours.shape
    rows = torch.arange(size).repeat_interleave(count)
    edges = torch.stack([rows, index.neighbours.flatten().long()])
    weights = index.weights.flatten()
    one_way = torch.sparse_coo_tensor(edges, weights, (size, size), check_invariants=True)
    both_ways = (one_way + one_way.T).coalesce()
    one_step = F.normalize(both_ways @ drawn, dim=1)
    two_steps = F.normalize(both_ways @ one_step, dim=1)
    vectors = F.normalize(one_step + two_steps, dim=1)
    return torch.where(vectors.any(1, keepdim=True), vectors, F.normalize(drawn, dim=1))


def init_new_articles(encoder: Encoder, is_old: Tensor, index: CovisitationIndex) -> None:
    """Set each new article of `index` to the mean of its old neighbours' vectors, in place.

    `is_old` is bool (size,): the articles that have a vector from a training.
    """
    every = torch.arange(len(is_old))
    is_new = index.is_seen(every) & ~is_old
    if not (is_new.any() and is_old.any()):
        return
    neighbours = index.neighbours.long()
    weights = index.weights * is_old[neighbours]
    with torch.no_grad():
        total = F.embedding_bag(
            neighbours, encoder.vectors(every), mode="sum", per_sample_weights=weights
        )
        mean = total[is_new] / weights[is_new].sum(1, keepdim=True).clamp(min=1e-9)
        drawn = F.normalize(encoder.articles[is_new], dim=1)
        length = encoder.articles[is_old].norm(dim=1).median()
        encoder.articles[is_new] = length * (mean + 0.1 * drawn)
