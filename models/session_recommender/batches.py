"""What a training step is given: positions in an order that can be repeated, and whole sessions as
tensors."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from models.session_recommender.encoder import Session
from models.session_recommender.features import Events

LONGEST = 50
"""Events of a session that are learnt from at once; a longer one is cut."""
MIXED = 64
"""Batches that are cut from sessions sorted by length."""


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
        self.epoch = self.done = 0
        self.rank = 0
        self.processes = 1

    @property
    def sampler(self) -> "Batches":
        """Where Lightning looks for `set_epoch`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = epoch

    def state_dict(self) -> dict[str, int]:
        """Batches of the epoch that were trained on; called by Lightning with each checkpoint."""
        return {"done": self.done}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continues after the batch that `state_dict` was asked at."""
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
        """Every `MIXED` batches' worth are sorted by length first, or all batches would be as wide
        as the longest."""
        order = order[: len(order) // self.size * self.size]
        parts = [order[i : i + self.size * MIXED] for i in range(0, len(order), self.size * MIXED)]
        return np.concatenate(
            [part[np.argsort(self.lengths[part], kind="stable")] for part in parts]
        ).reshape(-1, self.size)


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
        """All sessions of `e`, whose articles are `row`; long ones are cut every `LONGEST`
        events."""
        first = np.flatnonzero(e.position % LONGEST == 0)
        length = np.diff(np.r_[first, len(e)])
        keep = length > 1
        return cls(row, e.kind, e.ts, first[keep], length[keep])

    def take(self, index: np.ndarray) -> Session:
        """Sessions at `index` as int64 (n, longest), padded with the last row of the catalogue, -1
        and -1."""
        start = self.start[index, None]
        length = self.length[index, None]
        column = np.arange(length.max())
        at = np.minimum(start + column, len(self.row) - 1)
        padded = [np.where(column < length, a[at], -1) for a in (self.row, self.kind, self.ts)]
        return Session(*(torch.from_numpy(a) for a in padded))
