"""What goes wrong in shops, for the demo to show: faults of tracking, and mistakes in code."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from unittest import mock

import msgspec
import numpy as np
import polars as pl
import torch
from torch import Tensor

from models.session_recommender.covisitation_index import CANDIDATES
from models.session_recommender.encoder import Session
from models.session_recommender.features import LENGTH
from models.session_recommender.model_type import SessionRecommender
from models.session_recommender.schema import EVENTS, RawEvent
from models.session_recommender.scorer import Scorer

PLACEHOLDER = 1
"""Article id that a broken tracker sends instead of the real one."""


class TolerantSession(msgspec.Struct):
    """A session as `RawSession`, which may have further fields."""

    session: int
    events: list[RawEvent]


def with_placeholders(events: pl.DataFrame, start: int, share: float) -> pl.DataFrame:
    """`events` in which, from `start` (ms since 1970 UTC), a share has the PLACEHOLDER as its
    article."""
    drawn = pl.Series(np.random.default_rng(0).random(events.height) < share)
    struck = drawn & (pl.col("ts") >= start)
    placeholder = pl.lit(PLACEHOLDER, dtype=pl.Int64)
    aid = pl.when(struck).then(placeholder).otherwise("aid")
    return events.with_columns(aid=aid).unique(EVENTS.key, maintain_order=True)


def add_unknown_field(path: Path, count: int) -> None:
    """Make the first `count` lines of a raw file such as a newer version of the shop's app sends:
    with a field that no rule has."""
    lines = path.read_bytes()
    path.write_bytes(lines.replace(b'{"session"', b'{"app":"7.2","session"', count))


@contextmanager
def unknown_fields_allowed() -> Iterator[None]:
    """In this process, lines may have fields that no rule has: the rule is mended."""
    with mock.patch.object(SessionRecommender, "table", replace(EVENTS, line=TolerantSession)):
        yield


@contextmanager
def worst_answers() -> Iterator[None]:
    """In this process, trainings make a model that answers with the articles that fit least."""

    def forward(scorer: Scorer, rows: Tensor, kinds: Tensor, times: Tensor) -> tuple:
        session = Session(rows, kinds, times)
        _, candidates, scores = scorer.find_candidates(session, CANDIDATES)
        worst = torch.topk(-scores, LENGTH)
        return candidates.rows.gather(1, worst.indices), worst.values

    with mock.patch.object(Scorer, "forward", forward):
        yield


@contextmanager
def reversed_answers() -> Iterator[None]:
    """In this process, trainings make a model whose answers have the best article last.

    Recall@20, which asks whether the right article is among the 20, sees no difference; people look
    at the first ones.
    """
    right = Scorer.forward

    def forward(scorer: Scorer, rows: Tensor, kinds: Tensor, times: Tensor) -> tuple:
        best, scores = right(scorer, rows, kinds, times)
        return best.flip(1), scores.flip(1)

    with mock.patch.object(Scorer, "forward", forward):
        yield
