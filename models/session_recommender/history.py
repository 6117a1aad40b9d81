"""Events of a training by the time at which their sessions started."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from models.session_recommender.covisitation import covisit
from models.session_recommender.covisitation_index import CovisitationIndex
from models.session_recommender.encoder import Session
from models.session_recommender.features import Catalogue, Events, prefixes


@dataclass(frozen=True)
class Prefixes:
    """`n` beginnings of sessions, and the event that follows each."""

    session: Session
    labels: Tensor
    """int64 (n,), rows"""
    kinds: Tensor
    """int64 (n,), of the labels' events"""
    starts: Tensor
    """int64 (n,), time (ms) at which each session started"""

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, positions: Tensor) -> "Prefixes":
        """The prefixes at `positions`."""
        session = Session(*(t[positions] for t in self.session))
        labels = self.labels[positions]
        return Prefixes(session, labels, self.kinds[positions], self.starts[positions])

    def by_start(self) -> "Prefixes":
        """The prefixes in the order in which their sessions started."""
        return self.take(self.starts.argsort(stable=True))


@dataclass(frozen=True)
class History:
    """Events to learn from, and the catalogue of their articles."""

    events: Events
    catalogue: Catalogue

    @cached_property
    def rows(self) -> np.ndarray:
        """Row of each event's article, int64 (events,)."""
        return self.catalogue.rows(self.events.aid)

    @cached_property
    def starts(self) -> np.ndarray:
        """Time (ms) at which each event's session started, int64 (events,)."""
        return self.events.started()

    def index(self, mask: np.ndarray) -> CovisitationIndex:
        """Co-visitation of the sessions in `mask`, bool (events,)."""
        return CovisitationIndex(covisit(self.events.take(mask), self.catalogue))

    def prefixes_of(self, mask: np.ndarray) -> Prefixes:
        """Every prefix of the sessions in `mask`, in the order of the events."""
        e = self.events.take(mask)
        rows = self.rows[mask]
        row_prefixes, label = prefixes(e, rows, self.catalogue.nothing)
        kind_prefixes, _ = prefixes(e, e.kind)
        time_prefixes, _ = prefixes(e, e.ts)
        session = Session(*map(torch.from_numpy, (row_prefixes, kind_prefixes, time_prefixes)))
        labels = torch.from_numpy(rows[label])
        kinds = torch.from_numpy(e.kind[label])
        return Prefixes(session, labels, kinds, torch.from_numpy(e.started()[label]))
