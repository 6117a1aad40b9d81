"""Batches of a training: lists in an order that can be repeated."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from models.search_ranker.features import Lists


class Batch(NamedTuple):
    """Lists of a step, as long as the longest of them."""

    features: Tensor
    """float32 (n, results, features), NaN where a value is missing."""
    categories: Tensor
    """int64 (n, results, columns): the vocabulary's numbers."""
    gains: Tensor
    """float32 (n, results), `NO_GAIN` where there is no result."""
    targets: Tensor
    """float32 (n, results)."""
    folds: Tensor
    """int64 (n,): the part of the queries that each list is of."""


class Batches:
    """`steps` batches of `size` lists; all lists are gone through again and again, shuffled anew.

    The order depends on the seed alone, so that a resumed training goes on where it stopped. Of
    several processes, each takes its share of every batch.
    """

    def __init__(
        self,
        lists: Lists,
        numbers: np.ndarray,
        folds: np.ndarray,
        size: int,
        steps: int,
        seed: int,
    ):
        """`numbers` are the vocabulary's, of the lists' categories."""
        self.lists = lists
        self.numbers = numbers
        self.folds = folds
        self.size = min(size, len(lists))
        self.steps = steps
        self.seed = seed
        self.done = 0
        self.rank = 0
        self.processes = 1

    def state_dict(self) -> dict[str, int]:
        """Number of batches that were trained on; Lightning calls it with each checkpoint."""
        return {"done": self.done}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue after the batch at which `state_dict` was called."""
        self.done = state["done"]

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Batch]:
        first = self.done
        self.done = 0
        for step in range(first, self.steps):
            yield self.take(self.positions(step)[self.rank :: self.processes])

    def positions(self, step: int) -> np.ndarray:
        """Positions of the lists of a step, int64 (size,)."""
        steps_of_pass = len(self.lists) // self.size
        number, place = divmod(step, steps_of_pass)
        order = np.random.default_rng([self.seed, number]).permutation(len(self.lists))
        return order[place * self.size : (place + 1) * self.size]

    def take(self, index: np.ndarray) -> Batch:
        """The lists at `index`."""
        gains = self.lists.gains[index]
        longest = max(1, int((gains >= 0).sum(1).max()))
        return Batch(
            torch.from_numpy(self.lists.features[index, :longest]),
            torch.from_numpy(self.numbers[index, :longest]),
            torch.from_numpy(gains[:, :longest]),
            torch.from_numpy(self.lists.targets[index, :longest]),
            torch.from_numpy(self.folds[index]),
        )
