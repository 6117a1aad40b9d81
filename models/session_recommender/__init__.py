"""Next articles for a shop session, in the format of OTTO's recsys data. Importing this stays light: no torch."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from pydantic import BaseModel, Field

from models.session_recommender import metrics
from models.session_recommender.features import LENGTH, PADDING, events, prefixes
from models.session_recommender.schema import EVENTS
from models.spec import Examples, ModelSpec, Tensors, Trained, Work


class Params(BaseModel, extra="forbid"):
    """Training parameters."""

    dim: int = Field(default=64, ge=4, description="Length of an article's vector.")
    epochs: int = Field(default=4, ge=1, description="Most passes over all prefixes when there is no parent.")
    warm_epochs: int = Field(
        default=2, ge=1, description="Most passes over new and some old prefixes when there is a parent."
    )
    batch_size: int = Field(default=512, ge=2, description="Prefixes in a training step.")
    lr: float = Field(default=2e-3, gt=0, description="Highest learning rate; it falls to zero.")
    negatives: int = Field(default=2048, ge=1, description="Articles drawn in a step to compare the right ones with.")
    seed: int = Field(default=0, ge=0, description="Same rows, parameters, parent and thread count: same weights.")

    @classmethod
    def tiny(cls) -> "Params":
        """For tests: seconds on a few hundred sessions."""
        return cls(dim=16, epochs=2, warm_epochs=1, batch_size=64, negatives=64)


class SessionRecommender(ModelSpec):
    """Given the newest events of a session, the 20 articles most likely next, seen ones included.

    ONNX input `article_ids` int64 (batch, 20): raw ids, oldest first, then -1. Outputs `answers` int64 (batch, 20): raw
    ids, best first, -1 where the catalogue has fewer than 20 articles; and `scores` float32 (batch, 20), of use only to
    compare the answers of one version with each other.
    """

    name = "session_recommender"
    table = EVENTS
    Params = Params
    metric = "recall@20"

    def examples(self, rows: pl.DataFrame) -> Examples:
        """Every prefix of every session with the article that came next; groups are session ids."""
        e = events(rows)
        inputs, label = prefixes(e, e.aid, PADDING)
        return Examples({"article_ids": inputs}, e.aid[label], e.session[label])

    def score(self, examples: Examples, outputs: Tensors) -> np.ndarray:
        """Recall@20: 1 where the article that came next is among the answers."""
        return metrics.recall(outputs["answers"], examples.labels)

    def tensors(self, requests: list[dict]) -> Tensors:
        """Requests `{"events": [{"aid": 7, ...}, ...]}`, oldest event first; only the newest 20 count."""
        ids = np.full((len(requests), LENGTH), PADDING, np.int64)
        for i, request in enumerate(requests):
            found = [_aid(i, j, event) for j, event in enumerate(_events(i, request))][-LENGTH:]
            ids[i, : len(found)] = found
        return {"article_ids": ids}

    def answers(self, outputs: Tensors) -> list[dict]:
        """`{"article_ids": [...], "scores": [...]}` per request, best first."""
        result = []
        for ids, scores in zip(outputs["answers"], outputs["scores"], strict=True):
            real = ids != PADDING
            result.append({"article_ids": ids[real].tolist(), "scores": scores[real].tolist()})
        return result

    def golden(self) -> list[dict]:
        """Edge cases: no event, an unknown article, a lone event, repeats, more than 20 events, known and unknown."""
        sessions = [[], [2**62], [1], [1, 1, 1], [1, 2, 1], list(range(1, 21)), list(range(1, 60)), [1, 2**62, 2, 0]]
        return [{"events": [{"aid": aid} for aid in session]} for session in sessions]

    def monitored(self, rows: pl.DataFrame, trained_on: pl.DataFrame) -> pl.DataFrame:
        """One row per session, in the order of their ids.

        `length` events; `unseen_share` of its events with an article that training never saw; `popularity`, the mean
        of log(1 + events in training) over its events; `carts_share` and `orders_share` of its events.
        """
        counts = trained_on.group_by("aid").len("seen")
        return (
            rows.join(counts, on="aid", how="left", maintain_order="left")
            .with_columns(pl.col("seen").fill_null(0))
            .group_by("session")
            .agg(
                length=pl.len().cast(pl.Int64),
                unseen_share=(pl.col("seen") == 0).mean(),
                popularity=pl.col("seen").log1p().mean(),
                carts_share=(pl.col("type") == "carts").mean(),
                orders_share=(pl.col("type") == "orders").mean(),
            )
            .sort("session")
            .drop("session")
        )

    def train(self, rows: pl.DataFrame, params: Any, work: Work) -> Trained:
        """Fits on `rows`, or continues from `work.parent`. Raises ValueError if no session has two events."""
        from models.session_recommender import training

        return training.train(rows, params, work)

    def baseline(self, rows: pl.DataFrame, folder: Path) -> Path:
        """The co-visitation table alone."""
        from models.session_recommender import baseline

        return baseline.build(rows, folder)


def _events(i: int, request: dict) -> list:
    found = request.get("events") if isinstance(request, dict) else None
    if not isinstance(found, list):
        raise ValueError(f'Request {i}: "events" must be a list. Send {{"events": [{{"aid": 123}}]}}, oldest first.')
    return found


def _aid(i: int, j: int, event: dict) -> int:
    aid = event.get("aid") if isinstance(event, dict) else None
    if not isinstance(aid, int) or isinstance(aid, bool) or not 0 <= aid < 2**63:
        raise ValueError(
            f'Request {i}: events[{j}]["aid"] is {aid!r}. Send an article id, an integer from 0 to 2^63 - 1.'
        )
    return aid


SPEC = SessionRecommender()
