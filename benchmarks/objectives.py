"""What do heavier carts and orders bring in OTTO's weighted score, and what do they cost in clicks?

`python -m benchmarks.objectives` trains on a simulated shop whose visitors also put articles in the
cart and order them. It trains once with equal event weights, and once with those of OTTO's score
beside a click (3 and 6). Each ONNX file answers every prefix of the week after, by OTTO's protocol:
one list of 20 answers for all three kinds. The co-visitation table answers, too. The last line is
JSON. The shop is no evidence of real visitors: only of the weights doing what they say.
"""

import json
import tempfile
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks import otto_protocol
from demo.shop import Plan, simulate
from kreislauf.evaluation import scoring
from models.session_recommender import SPEC, Params
from models.session_recommender.schema import EVENT_TYPES
from models.spec import TrainingContext

PLAN = Plan(days=35, sessions_per_day=1000, articles=3000, change_day=99)
TEST_DAYS = 7
AFTER_MS = 5_000
"""Milliseconds from a click to the cart, and from the last event to the first order."""
WEIGHTED = {"cart_weight": 3.0, "order_weight": 6.0}
"""Parameters with the event weights of OTTO's score."""


def shop(plan: Plan, seed: int = 0) -> pl.DataFrame:
    """The simulated shop with carts and orders.

    A fifth of the articles are put in the cart much more often than the others, right after the
    click. Two thirds of the cart are ordered at the end.
    """
    rng = np.random.default_rng(seed)
    clicks = simulate(plan).with_columns(pl.col("type").cast(pl.String))
    wanted = pl.col("aid").hash(seed) % 5 == 0
    draw, again = (pl.Series(rng.random(clicks.height)) for _ in range(2))
    first = clicks.select(pl.struct("session", "aid").is_first_distinct()).to_series()
    chance = clicks.select(pl.when(wanted).then(0.5).otherwise(0.03)).to_series()
    carts = clicks.filter(first & (draw < chance))
    carts = carts.with_columns(pl.col("ts") + AFTER_MS, type=pl.lit("carts"))
    end = clicks.group_by("session").agg(end=pl.col("ts").max())
    bought = carts.filter(again[: carts.height] < 2 / 3)
    bought = bought.join(end, on="session", maintain_order="left")
    place = pl.int_range(1, pl.len() + 1).over("session")
    ordered_at = pl.col("end") + 2 * AFTER_MS + 1000 * place
    orders = bought.with_columns(ts=ordered_at, type=pl.lit("orders")).drop("end")
    rows = pl.concat([clicks, carts, orders]).cast({"type": pl.Enum(EVENT_TYPES)})
    return rows.sort("session", "ts", "aid", "type")


def otto_score(onnx: Path, test: pl.DataFrame) -> dict[str, float]:
    """Recall@20 of clicks, carts and orders over every prefix, and OTTO's weighted mean."""
    labels = otto_protocol.labels(test)
    answers = pl.Series(scoring.answer(onnx, SPEC.examples(test).inputs)["answers"]).arr.to_list()
    by_kind = [answers.alias(kind) for kind in EVENT_TYPES]
    predictions = labels.select("session", "seen").with_columns(by_kind)
    recalls = otto_protocol.recall(labels, predictions)
    return {name: round(value, 4) for name, value in recalls.items()}


def run(plan: Plan, params: Params, folder: Path) -> dict[str, dict]:
    """OTTO's score of each contender by its name."""
    halves = otto_protocol.split(shop(plan), TEST_DAYS)
    scores = {"table": otto_score(SPEC.baseline(halves.train, folder), halves.test)}
    for name, weights in {"equal": {}, "weighted": WEIGHTED}.items():
        (folder / name).mkdir()
        weighted = params.model_copy(update=weights)
        trained = SPEC.train(halves.train, weighted, TrainingContext(folder / name))
        scores[name] = otto_score(trained.onnx, halves.test)
    for name, score in scores.items():
        print(f"{name:10}", score, flush=True)
    return scores


def main() -> None:
    """Run the benchmark that the module describes."""
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(run(PLAN, Params(), Path(folder))))


if __name__ == "__main__":
    main()
