"""Batches of a training: positions in a repeatable order, and whole sessions as tensors."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from models.session_recommender.encoder import Session
from models.session_recommender.features import Events

LONGEST = 50
"""Maximum events of a session that are learnt from at once; a longer one is cut."""
MIXED = 64
"""Number of batches that are cut from sessions sorted by length."""


class Batches:
    """Positions 0..n-1 in random order, `size` at a time, of one group and about the same length.

    What is left of a group is left out. The order depends on the seed and the epoch alone, so that
    a resumed training goes on where it stopped. Of several processes, each takes its share of every
    batch.
    """

    def __init__(
        self,
        lengths: np.ndarray,
        groups: list[int],
        size: int,
        seed: int,
        take: Callable[[np.ndarray], Any],
    ):
        self.lengths = lengths
        self.seed = seed
        self.take = take
        self.groups = np.split(np.arange(len(lengths)), np.cumsum(groups)[:-1])
        self.size = min(size, *groups, size)
        self.epoch = 0
        self.done = 0
        self.rank = 0
        self.processes = 1

    @property
    def sampler(self) -> "Batches":
        """The object on which Lightning calls `set_epoch`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Begin epoch `epoch`; Lightning calls it."""
        self.epoch = epoch

    def state_dict(self) -> dict[str, int]:
        """Batches of the epoch that were trained on; Lightning calls it with each checkpoint."""
        return {"done": self.done}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue after the batch at which `state_dict` was called."""
        self.done = state["done"]

    def __len__(self) -> int:
        return sum(len(group) // self.size for group in self.groups)

    def __iter__(self) -> Iterator[Any]:
        draw = np.random.default_rng([self.seed, self.epoch])
        batches = np.concatenate([self._cut(draw.permutation(group)) for group in self.groups])
        first = self.done
        self.done = 0
        for batch in draw.permutation(batches)[first:]:
            yield self.take(batch[self.rank :: self.processes])

    def _cut(self, order: np.ndarray) -> np.ndarray:
        """Cut batches from stretches of `MIXED` of them, each sorted by length.

        Otherwise all batches would be as wide as the longest session.
        """
        order = order[: len(order) // self.size * self.size]
        width = self.size * MIXED
        stretches = [order[i : i + width] for i in range(0, len(order), width)]
        by_length = [s[np.argsort(self.lengths[s], kind="stable")] for s in stretches]
        return np.concatenate(by_length).reshape(-1, self.size)


@dataclass(frozen=True)
class Sequences:
    """Sessions as slices of parallel arrays, at least two events each."""

    row: np.ndarray
    kind: np.ndarray
    ts: np.ndarray
    start: np.ndarray
    length: np.ndarray

    @classmethod
    def of(cls, e: Events, row: np.ndarray) -> "Sequences":
        """All sessions of `e`, whose articles are `row`, cut every `LONGEST` events."""
        first = np.flatnonzero(e.position % LONGEST == 0)
        length = np.diff(np.r_[first, len(e)])
        keep = length > 1
        return cls(row, e.kind, e.ts, first[keep], length[keep])

    def take(self, index: np.ndarray) -> Session:
        """Sessions at `index` as int64 (n, longest), padded with -1."""
        start = self.start[index, None]
        length = self.length[index, None]
        column = np.arange(length.max())
        position = np.minimum(start + column, len(self.row) - 1)
        arrays = (self.row, self.kind, self.ts)
        padded = [np.where(column < length, array[position], -1) for array in arrays]
        return Session(*map(torch.from_numpy, padded))
