"""The networks: the n-grams of a question to a score for each intent."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

SCALE = 3.0
"""Length of the vector of weights of a question's n-grams."""


class Network(nn.Module):
    """`members` networks with one hidden layer each, whose log-probabilities are averaged.

    Each n-gram has a vector. A question's hidden layer is the sum of the vectors, weighted by how
    rare the n-grams are.
    """

    rarity: Tensor

    def __init__(self, rarity: Tensor, dim: int, members: int, intents: int, dropout: float = 0.0):
        super().__init__()
        self.members = members
        self.dropout = dropout
        self.register_buffer("rarity", rarity)
        self.vectors = nn.Parameter(torch.randn(len(rarity), members * dim) * 0.1)
        self.bias = nn.Parameter(torch.zeros(members * dim))
        self.output = nn.Parameter(torch.randn(members, dim, intents) / dim**0.5)
        self.output_bias = nn.Parameter(torch.zeros(members, 1, intents))

    def round(self) -> None:
        """Store the vectors in half the bytes, as they are served; after that it cannot learn."""
        self.vectors = nn.Parameter(self.vectors.detach().half(), requires_grad=False)

    def hidden_of_bags(self, rows: Tensor, starts: Tensor) -> Tensor:
        """Sums of the n-grams of each question: (batch, members * dim).

        `rows` (n,) are those of all questions, one after the other; `starts` (batch,) are the
        positions of each question's first.
        """
        weights = self.rarity[rows]
        question = torch.bucketize(torch.arange(len(rows)), starts, right=True) - 1
        squares = torch.zeros(len(starts)).index_add(0, question, weights * weights)
        sums = F.embedding_bag(
            rows, self.vectors.float(), starts, mode="sum", sparse=True, per_sample_weights=weights
        )
        return sums * normed(squares)

    def hidden(self, rows: Tensor) -> Tensor:
        """The same of questions with equally many rows, int64 (batch, many), 0 for none."""
        weights = self.rarity[rows]
        sums = (self.vectors[rows].float() * weights[..., None]).sum(1)
        return sums * normed((weights * weights).sum(1))

    def members_scores(self, hidden: Tensor) -> Tensor:
        """Scores of each member: (members, batch, intents)."""
        active = F.dropout(F.relu(hidden + self.bias), self.dropout, self.training)
        by_member = active.unflatten(1, (self.members, -1)).transpose(0, 1)
        return torch.matmul(by_member, self.output) + self.output_bias

    def forward(self, hidden: Tensor) -> Tensor:
        """Averaged log-probabilities, (batch, intents)."""
        return self.members_scores(hidden).log_softmax(-1).mean(0)


def normed(squares: Tensor) -> Tensor:
    """Factor that gives weights with these sums of squares the length `SCALE`: (batch, 1)."""
    return SCALE * squares.clamp(min=1e-6).rsqrt()[:, None]


def rarity(bags: list[np.ndarray], buckets: int) -> Tensor:
    """Weight of each row: inverse document frequency, 0 of what no question has; (buckets + 1,)."""
    rows = np.concatenate([np.unique(bag) for bag in bags])
    counts = np.bincount(rows, minlength=buckets + 1)
    weights = np.log((1 + len(bags)) / (1 + counts)) + 1
    return torch.from_numpy(np.where(counts > 0, weights, 0).astype(np.float32))


class ServedNetwork(nn.Module):
    """The network, its calibration and the decision: what the ONNX file holds after the n-grams."""

    def __init__(self, network: Network, temperature: float, threshold: float):
        super().__init__()
        self.network = network
        self.temperature = temperature
        self.threshold = threshold

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Position of the best intent, its probability, and whether a person should answer.

        `rows` int64 (batch, many); int64, float32 and bool (batch, 1).
        """
        scores = self.network(self.network.hidden(rows))
        confidence, best = (scores / self.temperature).softmax(-1).max(-1, keepdim=True)
        nothing_known = self.network.rarity[rows].sum(1, keepdim=True) == 0
        return best, confidence, (confidence < self.threshold) | nothing_known
