"""Next articles for a shop session, in the format of OTTO's recsys data. Importing this stays
light: no torch."""

from pathlib import Path
from typing import Any, ClassVar, TypeGuard

import numpy as np
import polars as pl

from models.session_recommender import metrics
from models.session_recommender.features import (
    INPUTS,
    LENGTH,
    PADDING,
    events,
    prefixes,
    with_popularity,
)
from models.session_recommender.params import Params
from models.session_recommender.schema import EVENT_TYPES, EVENTS
from models.spec import Examples, ModelSpec, Policy, Tensors, TrainingContext, TrainingResult


class SessionRecommender(ModelSpec):
    """Given the newest events of a session, the 20 articles most likely next, seen ones included.

    ONNX inputs, int64 (batch, 20) each, oldest event first, then -1: `article_ids`, raw; `types`, 0
    click, 1 cart, 2 order; `times`, ms since 1970, -1 if unknown. Outputs `answers` int64 (batch,
    20): raw ids, best first, -1 where the catalogue has fewer than 20 articles; and `scores`
    float32 (batch, 20), of use only to compare the answers of one version with each other.
    """

    name = "session_recommender"
    table = EVENTS
    Params = Params
    metric = "recall@20"
    mix = ("session_length", "event_type")
    # No event yet: what is popular now.
    fallback: ClassVar[dict] = {"events": []}
    # Real pairs of models differ by .09 to .16 (benchmarks/gate.py), so a day of a middling shop is
    # enough to judge.
    policy = Policy(group_sd=0.16)

    def examples(self, rows: pl.DataFrame) -> Examples:
        """Every prefix of every session with the article that came next; groups are session ids."""
        e = events(rows)
        label = np.flatnonzero(e.position > 0)
        columns = zip(INPUTS, (e.aid, e.kind, e.ts), strict=True)
        inputs = {name: prefixes(e, values, PADDING)[0] for name, values in columns}
        return Examples(inputs, e.aid[label], e.session[label])

    def score(self, examples: Examples, outputs: Tensors) -> np.ndarray:
        """Recall@20: 1 where the article that came next is among the answers."""
        return metrics.recall(outputs["answers"], examples.labels)

    def training_profile(self, rows: pl.LazyFrame) -> pl.LazyFrame:
        """For each article how many events it had, `seen`, and when the first of them was, `ts`;
        sorted by `aid`."""
        return rows.group_by("aid").agg(pl.col("ts").min(), seen=pl.len()).sort("aid")

    def slices(self, rows: pl.DataFrame, known: pl.DataFrame) -> pl.DataFrame:
        """By session length, age of the label's article, repeat or new, and type; see
        `metrics.slices`."""
        return metrics.slices(rows, known)

    def coverage(self, outputs: Tensors, known: pl.DataFrame) -> float:
        """Share of the articles that training saw."""
        return metrics.coverage(outputs["answers"], known.height)

    def tensors(self, requests: list[dict]) -> Tensors:
        """Requests `{"events": [{"aid": 7, "type": "clicks", "ts": 1661724000278}, ...]}`, oldest
        event first.

        Only the newest 20 count. `type` is clicks if it is missing, and without `ts` the time is
        not known.
        """
        found = {name: np.full((len(requests), LENGTH), PADDING, np.int64) for name in INPUTS}
        for i, request in enumerate(requests):
            read = [_event(i, j, event) for j, event in enumerate(_events(i, request))][-LENGTH:]
            for name, values in zip(INPUTS, zip(*read, strict=True), strict=False):
                found[name][i, : len(read)] = values
        return found

    def answers(self, outputs: Tensors) -> list[dict]:
        """`{"article_ids": [...], "scores": [...]}` per request, best first."""
        result = []
        for ids, scores in zip(outputs["answers"], outputs["scores"], strict=True):
            real = ids != PADDING
            result.append({"article_ids": ids[real].tolist(), "scores": scores[real].tolist()})
        return result

    def items(self, answer: dict) -> list[int]:
        """The article ids."""
        return answer["article_ids"]

    def golden(self) -> list[dict]:
        """Edge cases: no event, an unknown article, a lone event, repeats, more than 20 events,
        known and unknown."""
        sessions = [
            [],
            [2**62],
            [1],
            [1, 1, 1],
            [1, 2, 1],
            list(range(1, 21)),
            list(range(1, 60)),
            [1, 2**62, 2, 0],
        ]
        return [{"events": [{"aid": aid} for aid in session]} for session in sessions]

    def monitored(self, rows: pl.LazyFrame, known: pl.DataFrame) -> pl.LazyFrame:
        """`unseen`: an article that training never saw; `popularity`: log(1 + its events in
        training); `carts` and `orders`: the type of the event."""
        return with_popularity(rows, known).select(
            unseen=pl.col("popularity").is_null(),
            popularity=pl.col("popularity").fill_null(0),
            carts=pl.col("type") == "carts",
            orders=pl.col("type") == "orders",
        )

    def train(self, rows: pl.DataFrame, params: Any, work: TrainingContext) -> TrainingResult:
        """Fits on `rows`, or continues from `work.parent`. Raises ValueError if no session has two
        events."""
        from models.session_recommender import training

        return training.train(rows, params, work)

    def baseline(self, rows: pl.DataFrame, folder: Path) -> Path:
        """The co-visitation table alone."""
        from models.session_recommender import baseline

        return baseline.build(rows, folder)


def _events(i: int, request: dict) -> list:
    found = request.get("events") if isinstance(request, dict) else None
    if not isinstance(found, list):
        raise ValueError(
            f'Request {i}: "events" must be a list. Send {{"events": [{{"aid": 123}}]}}, oldest first.'
        )
    return found


def _event(i: int, j: int, event: dict) -> tuple[int, int, int]:
    """Article, kind and time of one event."""
    event = event if isinstance(event, dict) else {}
    aid = event.get("aid")
    ts = event.get("ts")
    kind = event.get("type", EVENT_TYPES[0])
    if not _natural(aid):
        raise ValueError(
            f'Request {i}: events[{j}]["aid"] is {aid!r}. Send an article id, an integer from 0 to 2^63 - 1.'
        )
    if ts is not None and not _natural(ts):
        raise ValueError(
            f'Request {i}: events[{j}]["ts"] is {ts!r}. Send ms since 1970, an integer, or leave it out.'
        )
    if kind not in EVENT_TYPES:
        raise ValueError(
            f'Request {i}: events[{j}]["type"] is {kind!r}. Send one of {", ".join(EVENT_TYPES)}.'
        )
    return aid, EVENT_TYPES.index(kind), PADDING if ts is None else ts


def _natural(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63
