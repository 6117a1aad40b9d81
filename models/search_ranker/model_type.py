"""The model type: the order of search results for a query.

Importing it stays light: no torch.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import polars as pl

from models import text
from models.answer_lists import real_values
from models.search_ranker import metrics, requests, statistics
from models.search_ranker.features import (
    INPUTS,
    NO_ITEM,
    inputs,
    lists,
    numbered,
    padded,
    placed,
)
from models.search_ranker.messages import Order, Results
from models.search_ranker.params import Params
from models.search_ranker.schema import RESULTS, SEARCHES
from models.spec import Examples, ModelSpec, Policy, Tensors, TrainingContext, TrainingResult


class SearchRanker(ModelSpec):
    """Given the results of a query and the features of each, the same results, best first.

    ONNX inputs, a list in a row, `RESULTS` places, of which the last ones may be empty:
    - `items`, text (batch, 50): raw ids, nothing where there is no result.
    - `features`, float32 (batch, 50, 100): raw values, NaN where one is missing.
    - `categories`, text (batch, 50, 10): raw values, nothing where one is missing.

    Outputs:
    - `answers`, text (batch, 50): raw ids, best first, nothing at the end.
    - `scores`, float32 (batch, 50), of use only to compare results of one answer.

    It learns from the grade of each result, 0 to 4. A grade with a position is a customer's, who
    looked at the first results more often, and counts as much more as that place is seen less;
    a grade without one is a person's judgement. See `features.weight`.
    """

    name = "search_ranker"
    table = SEARCHES
    Params = Params
    Request = Results
    Answer = Order
    metric = "ndcg@10"
    mix = ("list_length", "query_searches")
    # Nothing to order: an empty answer, and the shop keeps its own order.
    fallback: ClassVar[dict] = {"results": []}
    # Ranker and LightGBM, means of five seeds, differ by .08 in a query (benchmarks/ranker.py);
    # single trainings differ by more.
    policy = Policy(group_sd=0.12, p95_ms=50.0)

    def examples(self, rows: pl.DataFrame) -> Examples:
        """Every list in which something is right, with the gain of each result; groups are
        queries."""
        all_lists = lists(rows)
        tensors = {name: getattr(all_lists, name) for name in INPUTS}
        return Examples(tensors, all_lists.gains, all_lists.queries)

    def requests(self, rows: pl.DataFrame) -> tuple[np.ndarray, Tensors]:
        """Every list, by the id of its search."""
        rows = numbered(placed(rows))
        searches = rows.filter(pl.col("place") == 0)["search"]
        return text.column(searches), dict(zip(INPUTS, padded(rows), strict=True))

    def score(self, examples: Examples, outputs: Tensors) -> np.ndarray:
        """NDCG@10 of each list."""
        ordered = metrics.reordered(examples.inputs[INPUTS[0]], examples.labels, outputs["answers"])
        return metrics.ndcg(ordered, examples.labels)

    def training_profile(self, rows: pl.LazyFrame) -> pl.LazyFrame:
        """Searches of the most frequent queries, mean and range of each feature, and the most
        frequent categories.

        See `statistics.profile`.
        """
        return statistics.profile(rows)

    def slices(self, rows: pl.DataFrame, profile: pl.DataFrame) -> pl.DataFrame:
        """Length of the list, and how often training saw the query.

        See `metrics.slices`.
        """
        return metrics.slices(rows, profile.select("query", "searches").drop_nulls())

    def tensors(self, bodies: list[dict]) -> Tensors:
        """Requests `{"results": [{"item": "SKU-1", "features": [12.5, null, 3], "categories":
        ["shoes", null]}, ...]}`."""
        return inputs([requests.candidates(i, request) for i, request in enumerate(bodies)])

    def answers(self, outputs: Tensors) -> list[dict]:
        """`{"items": [...], "scores": [...]}` per request, best first."""
        is_real = outputs["answers"] != NO_ITEM
        lists = (real_values(outputs[name], is_real) for name in ("answers", "scores"))
        return [{"items": ids, "scores": scores} for ids, scores in zip(*lists, strict=True)]

    def items(self, answer: dict) -> list:
        """The ids."""
        return answer["items"]

    def item(self, value: Any) -> Any:
        """The id as text, whether it was sent as a number or as text."""
        item = requests.as_id(value)
        return value if item is None else item

    def answer_form(self, request: dict) -> Callable[[dict], dict]:
        """With the ids as the request has them, numbers or text."""
        sent = {str(result["item"]): result["item"] for result in request["results"]}
        return lambda answer: answer | {"items": [sent.get(item, item) for item in answer["items"]]}

    def golden(self) -> list[dict]:
        """Edge cases: no result, one, no feature, none that is known, odd ids, odd categories, all
        places."""
        full = [{"item": f"i{i}", "features": [i / RESULTS, None, -i]} for i in range(RESULTS)]
        results = [
            [],
            [{"item": "only", "features": [1.0]}],
            [{"item": "Größe ö", "features": []}, {"item": 7, "features": [None, None]}],
            [{"item": "a", "features": [1e30]}, {"item": "b", "features": [-1e30]}],
            [{"item": f"same {i}", "features": [0.5, 0.5]} for i in range(3)],
            [
                {"item": f"category {i}", "features": [0.5], "categories": categories}
                for i, categories in enumerate((None, [], [None], ["Schuhe ö", 7], ["7"] * 10))
            ],
            full,
        ]
        return [{"results": listed} for listed in results]

    def monitored(self, rows: pl.LazyFrame, profile: pl.DataFrame) -> pl.LazyFrame:
        """Numbers of each result.

        - `missing_features`: share of the features that have no value.
        - `outside`: share of the features beyond what training saw.
        - `level`: mean of the features, in deviations from those of training.
        - `missing_categories`: share of the categories that have no value.
        - `unseen_categories`: share of the categories that training never saw.
        - `grade`.
        - `unseen_query`: whether training never saw the query.
        """
        return statistics.monitored(rows, profile)

    def train(self, rows: pl.DataFrame, params: Any, work: TrainingContext) -> TrainingResult:
        """Fit on `rows`, or continue from `work.parent`.

        Raises ValueError if there are not two queries with a right answer.
        """
        from models.search_ranker import training

        return training.train(rows, params, work)

    def baseline(self, rows: pl.DataFrame, folder: Path) -> Path:
        """Choose the best single feature."""
        from models.search_ranker import baseline

        return baseline.build(rows, folder)
