"""The model type: next articles for a shop session, in the format of OTTO's recsys data.

Importing it stays light: no torch.
"""

from collections.abc import Callable
from operator import itemgetter
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import polars as pl

from models.answer_lists import real_values
from models.session_recommender import metrics, requests
from models.session_recommender.features import (
    INPUTS,
    LENGTH,
    PADDING,
    events,
    newest,
    prefixes,
    with_popularity,
)
from models.session_recommender.ids import Ids, WholeNumbers, Words
from models.session_recommender.messages import (
    NextArticles,
    NextArticlesByText,
    Session,
    SessionByText,
)
from models.session_recommender.params import Params
from models.session_recommender.schema import EVENTS, TEXT_EVENTS
from models.spec import Examples, ModelSpec, Policy, Tensors, TrainingContext, TrainingResult


class SessionRecommender(ModelSpec):
    """Given the newest events of a session, the 20 articles most likely next, seen ones included.

    ONNX inputs, int64 (batch, 20) each, oldest event first, then -1:
    - `article_ids`: raw ids.
    - `types`: 0 click, 1 cart, 2 order.
    - `times`: ms since 1970, -1 if unknown.

    Outputs:
    - `answers`, int64 (batch, 20): raw ids, best first, -1 where the catalogue has fewer than 20
      articles.
    - `scores`, float32 (batch, 20), of use only to compare the answers of one version.
    """

    name = "session_recommender"
    table = EVENTS
    ids: ClassVar[Ids] = WholeNumbers()
    Params = Params
    Request = Session
    Answer = NextArticles
    metric = "recall@20"
    mix = ("session_length", "event_type")
    kinds: ClassVar[dict[str, str]] = {"clicks": "click", "carts": "cart", "orders": "order"}
    # No event yet: what is popular now.
    fallback: ClassVar[dict] = {"events": []}
    # Real pairs of models differ by .09 to .16 (benchmarks/gate.py), so a day of a middling shop is
    # enough to judge.
    # Days differ by more than their sessions show (benchmarks/days.py).
    policy = Policy(group_sd=0.16, day_sd=0.013)

    def examples(self, rows: pl.DataFrame) -> Examples:
        """Every prefix of every session with the article that came next; groups are session ids."""
        e = events(rows)
        label = np.flatnonzero(e.position > 0)
        columns = zip(INPUTS, (e.aid, e.kind, e.ts), strict=True)
        inputs = {name: prefixes(e, values)[0] for name, values in columns}
        return Examples(inputs, e.aid[label], e.session[label])

    def requests(self, rows: pl.DataFrame) -> tuple[np.ndarray, Tensors]:
        """What each session would be asked after its last event, by its id; short sessions come
        first, because a batch takes as long as its longest session."""
        # Of a session with very many events, `events` has the first ones.
        ordered = rows.sort("session", "ts", "aid", "type")
        newest_rows = ordered.group_by("session", maintain_order=True).tail(LENGTH)
        e = events(newest_rows)
        columns = zip(INPUTS, (e.aid, e.kind, e.ts), strict=True)
        inputs = {name: newest(e, values) for name, values in columns}
        order = (inputs["types"] != PADDING).sum(1).argsort(kind="stable")
        by_length = {name: values[order] for name, values in inputs.items()}
        return e.session[e.position == 0][order], by_length

    def score(self, examples: Examples, outputs: Tensors) -> np.ndarray:
        """Recall@20: 1 where the article that came next is among the answers."""
        return metrics.recall(outputs["answers"], examples.labels)

    def training_profile(self, rows: pl.LazyFrame) -> pl.LazyFrame:
        """Number of events of each article, `seen`, and time of the first, `ts`; sorted by
        `aid`."""
        return rows.group_by("aid").agg(pl.col("ts").min(), seen=pl.len()).sort("aid")

    def slices(self, rows: pl.DataFrame, profile: pl.DataFrame) -> pl.DataFrame:
        """Session length, age of the label's article, repeat or new, and event type.

        See `metrics.slices`.
        """
        return metrics.slices(rows, profile)

    def coverage(self, outputs: Tensors, profile: pl.DataFrame) -> float:
        """Share of the articles that training saw."""
        return metrics.coverage(outputs["answers"], profile.height)

    def tensors(self, bodies: list[dict]) -> Tensors:
        """Requests `{"events": [{"aid": 7, "type": "clicks", "ts": 1661724000278}, ...]}`.

        Events come oldest first, or in any order if each has `ts`: they are sorted then, as for a
        training. Only the newest 20 count. `type` is clicks if it is missing, and without `ts` the
        time is unknown.
        """
        shape = (len(bodies), LENGTH)
        inputs = {name: np.full(shape, PADDING) for name in INPUTS}
        inputs[INPUTS[0]] = np.full(shape, self.ids.padding, self.ids.dtype)
        for i, request in enumerate(bodies):
            decoded = requests.events(i, request, self.ids)
            if all(time != PADDING for _, _, time in decoded):
                decoded.sort(key=itemgetter(2))
            newest = decoded[-LENGTH:]
            for name, values in zip(INPUTS, zip(*newest, strict=True), strict=False):
                inputs[name][i, : len(newest)] = values
        return inputs

    def answers(self, outputs: Tensors) -> list[dict]:
        """`{"article_ids": [...], "scores": [...]}` per request, best first."""
        is_real = outputs["answers"] != self.ids.padding
        lists = (real_values(outputs[name], is_real) for name in ("answers", "scores"))
        return [{"article_ids": ids, "scores": scores} for ids, scores in zip(*lists, strict=True)]

    def items(self, answer: dict) -> list:
        """The article ids."""
        return answer["article_ids"]

    def item(self, value: Any) -> Any:
        """The article id, whether it was sent as a number or as text."""
        article = self.ids.read(value)
        return value if article is None else article

    def answer_form(self, request: dict) -> Callable[[dict], dict]:
        """With article ids as numbers or as text: as `ids` of the request says, or else as its
        events have theirs."""
        id_type = requests.id_type(request)

        def with_ids(answer: dict) -> dict:
            article_ids = [self.ids.write(article, id_type) for article in answer["article_ids"]]
            return answer | {"article_ids": article_ids}

        return with_ids

    def golden(self) -> list[dict]:
        """Edge cases: no event, unknown articles, a lone event, repeats, more than 20 events."""
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

    def monitored(self, rows: pl.LazyFrame, profile: pl.DataFrame) -> pl.LazyFrame:
        """Numbers of each event.

        - `unseen`: whether training never saw the article.
        - `popularity`: log(1 + the article's events in training).
        - `carts` and `orders`: whether the event is one.
        """
        return with_popularity(rows, profile).select(
            unseen=pl.col("popularity").is_null(),
            popularity=pl.col("popularity").fill_null(0),
            carts=pl.col("type") == "carts",
            orders=pl.col("type") == "orders",
        )

    def train(self, rows: pl.DataFrame, params: Any, work: TrainingContext) -> TrainingResult:
        """Fit on `rows`, or continue from `work.parent`.

        Raises ValueError if no session has two events.
        """
        from models.session_recommender import training

        return training.train(rows, params, work)

    def baseline(self, rows: pl.DataFrame, folder: Path) -> Path:
        """Fit the co-visitation table alone."""
        from models.session_recommender import baseline

        return baseline.build(rows, folder)


class TextSessionRecommender(SessionRecommender):
    """The same for articles and sessions whose ids are text, or numbers that int64 does not hold.

    `article_ids` and `answers` are text, with nothing in place of -1. Whole numbers are their
    digits.
    """

    name = "session_recommender_text"
    table = TEXT_EVENTS
    ids = Words()
    Request = SessionByText
    Answer = NextArticlesByText
