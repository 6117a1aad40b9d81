"""Questions as bags of rows of the n-gram table, and the batches of a training."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

Batch = tuple[Tensor, Tensor, Tensor]
"""Rows of all questions (n,), the position of each question's first, and labels: int64."""


@dataclass(frozen=True)
class Bags:
    """Questions with their labels."""

    rows: list[np.ndarray]
    """int32: rows of the n-grams of each question."""
    labels: np.ndarray
    """int64 (n,): positions among the intents."""

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: np.ndarray) -> "Bags":
        """The questions at the positions."""
        return Bags([self.rows[i] for i in index], self.labels[index])

    def joined(self, others: "Bags") -> "Bags":
        """These and then the others."""
        return Bags([*self.rows, *others.rows], np.concatenate([self.labels, others.labels]))

    def batch(self) -> Batch:
        """All of them, as one batch."""
        lengths = np.array([len(rows) for rows in self.rows])
        starts = np.cumsum(lengths) - lengths
        rows = np.concatenate(self.rows).astype(np.int64)
        return torch.from_numpy(rows), torch.from_numpy(starts), torch.from_numpy(self.labels)

    def without(self, share: float, draw: np.random.Generator) -> "Bags":
        """The same questions, each without a random share of its n-grams."""
        rows = [bag[draw.random(len(bag)) >= share] for bag in self.rows]
        return Bags(rows, self.labels)


@dataclass
class Batches:
    """The batches of each epoch. Seed and epoch decide them, so that a training that was killed
    goes on as it would have."""

    bags: Bags
    size: int
    hidden_ngrams: float
    seed: int
    epoch: Callable[[], int]
    """The number of the current epoch."""

    def __len__(self) -> int:
        return -(-len(self.bags) // self.size)

    def __iter__(self) -> Iterator[Batch]:
        draw = np.random.default_rng([self.seed, self.epoch()])
        order = draw.permutation(len(self.bags))
        for start in range(0, len(order), self.size):
            questions = self.bags.take(order[start : start + self.size])
            yield questions.without(self.hidden_ngrams, draw).batch()
