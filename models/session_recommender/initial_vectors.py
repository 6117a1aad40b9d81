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


def init_new_articles(encoder: Encoder, has_vector: Tensor, index: CovisitationIndex) -> None:
    """Set each article of `index` without a vector to the mean of its neighbours' ones, in place.

    An article whose neighbours are new, too, follows when they have got theirs. Where no neighbour
    ever gets one, the articles start as in a cold training. `has_vector`, bool (size,), says which
    articles have a vector from a training, and is brought up to date.
    """
    is_new = index.is_seen(torch.arange(len(has_vector))) & ~has_vector
    if not (is_new.any() and has_vector.any()):
        has_vector |= is_new
        return
    length = encoder.articles[has_vector].norm(dim=1).median()
    with torch.no_grad():
        while True:
            neighbours = index.neighbours[is_new].long()
            weights = index.weights[is_new] * has_vector[neighbours]
            is_reached = weights.any(1)
            if not is_reached.any():
                break
            rows = is_new.nonzero()[is_reached, 0]
            neighbours = neighbours[is_reached]
            weights = weights[is_reached]
            total = F.embedding_bag(
                neighbours,
                F.normalize(encoder.articles, dim=1),
                mode="sum",
                per_sample_weights=weights,
            )
            mean = total / weights.sum(1, keepdim=True)
            drawn = F.normalize(encoder.articles[rows], dim=1)
            encoder.articles[rows] = length * (mean + 0.1 * drawn)
            has_vector[rows] = True
            is_new[rows] = False
        if index.weights[is_new].any():
            encoder.articles[is_new] = length * propagate(index, encoder.articles)[is_new]
    has_vector |= is_new
