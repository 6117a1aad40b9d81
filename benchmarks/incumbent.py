"""How much better does the champion look because clicks on what it showed count as right answers?

`python -m benchmarks.incumbent` simulates shops whose visitors see the answers of the live model.
The answer causes some steps of a visit: the visitor takes an article that suits him, and would not
have looked for it. Others only go through the answer: the wanted article is in it anyway. The table
`feedback` has both alike.

Two models of equal quality are co-visitation tables of two halves of the same visits. Each is live
once, and is judged against the second by the comparison of the gate. The true gain is that on as
many visits without answers; what the live model is judged to gain beyond is its advantage. It is
measured three times: `counted` with all clicks, `corrected` as the gate weighs them, and `left_out`
without them. `inflation` is what the monitor measures too much of the live quality, and
`inflation_corrected` the same if it weighed clicks as the gate does. The last line is JSON, by the
share of the steps that answers cause; positive numbers favour the champion.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from demo.shop import FOCUS, START_MS, Plan, Shop, simulate
from kreislauf.clock import DAY_MS
from kreislauf.evaluation import scoring, split
from kreislauf.evaluation.comparison import CAUSED_CLICKS, weights
from models.session_recommender import SPEC
from models.session_recommender.features import LENGTH, PADDING
from models.session_recommender.schema import EVENT_TYPES

SHOPS = 8
FIRST_SEED = 100
"""Of the shops; none of them chose the correction."""
HISTORY_DAYS = 14
VISITS = 1_500
"""Visits in a hold-out."""
THROUGH = 0.5
"""Share of the wanted articles in an answer that are clicked there."""
CAUSED = (0.0, 0.06, 0.12)
"""Shares of the steps that an answer causes."""


@dataclass(frozen=True)
class Visits:
    """A hold-out."""

    rows: pl.DataFrame
    clicked: np.ndarray
    """Whether each right answer was a click on what was shown, (n,)."""
    caused: float
    """Share of these clicks that the answer caused."""


class Visitor:
    """A visit, step by step."""

    def __init__(self, shop: Shop):
        self.shop = shop
        self.liking = np.exp(FOCUS * shop.style @ shop.styles(1)[0] + shop.appeal)
        self.cumulated = self.liking.cumsum()
        self.length = min(2 + shop.rng.geometric(0.28), 30)
        self.visited = [self.browse()]
        self.clicked: list[bool] = []
        self.caused = 0

    def browse(self) -> int:
        """Slot of an article that suits the taste."""
        draw = self.shop.rng.random() * self.cumulated[-1]
        return int(np.searchsorted(self.cumulated, draw))

    def step(self, shown: np.ndarray, caused: float) -> None:
        """Go to the next article; `shown` are slots in the answer."""
        rng = self.shop.rng
        if len(shown) and rng.random() < caused:
            weights = self.liking[shown]
            self.visited.append(int(rng.choice(shown, p=weights / weights.sum())))
            self.clicked.append(True)
            self.caused += 1
            return
        wanted = int(self.shop.following(self.visited, rng.random(), self.browse()))
        self.visited.append(wanted)
        self.clicked.append(bool(wanted in shown and rng.random() < THROUGH))


def visits(shop: Shop, onnx: Path | None, caused: float) -> Visits:
    """A hold-out whose visitors see the answers of a model, or none."""
    slots = {int(article): slot for slot, article in enumerate(shop.ids)}
    visitors = [Visitor(shop) for _ in range(VISITS)]
    active = visitors
    while active:
        for visitor, shown in zip(active, answers(shop, onnx, active), strict=True):
            on_offer = [slots[article] for article in shown if article in slots]
            visitor.step(np.array(on_offer, int), caused)
        active = [visitor for visitor in active if len(visitor.visited) < visitor.length]
    lengths = [len(visitor.visited) for visitor in visitors]
    steps = np.concatenate([np.arange(length) for length in lengths])
    rows = pl.DataFrame(
        {
            "session": np.repeat(np.arange(VISITS), lengths),
            "aid": shop.ids[np.concatenate([visitor.visited for visitor in visitors])],
            "ts": START_MS + HISTORY_DAYS * DAY_MS + 20_000 * steps,
            "type": pl.repeat("clicks", len(steps), eager=True, dtype=pl.Enum(EVENT_TYPES)),
        }
    )
    clicked = np.concatenate([visitor.clicked for visitor in visitors])
    causes = sum(visitor.caused for visitor in visitors)
    return Visits(rows, clicked, causes / max(int(clicked.sum()), 1))


def answers(shop: Shop, onnx: Path | None, visitors: list[Visitor]) -> Iterator[list[int]]:
    """Articles that each visitor is shown."""
    if onnx is None:
        return iter([[]] * len(visitors))
    inputs = {
        name: np.full((len(visitors), LENGTH), PADDING, np.int64)
        for name in ("article_ids", "types", "times")
    }
    for row, visitor in enumerate(visitors):
        newest = visitor.visited[-LENGTH:]
        inputs["article_ids"][row, : len(newest)] = shop.ids[newest]
        inputs["types"][row, : len(newest)] = 0
    return iter(scoring.answer(onnx, inputs)["answers"].tolist())


def recalls(models: list[Path], holdout: Visits) -> np.ndarray:
    """Recall@20 of each right answer by each model, (2, n)."""
    examples = SPEC.examples(holdout.rows)
    return np.stack(
        [SPEC.score(examples, scoring.answer(onnx, examples.inputs)) for onnx in models]
    )


def one_shop(seed: int, caused: float, folder: Path) -> list[dict]:
    """What is measured while each of the two models is live."""
    plan = Plan(days=HISTORY_DAYS, sessions_per_day=400, articles=1_000, change_day=99, seed=seed)
    history = simulate(plan)
    shop = Shop(plan)
    for day in range(HISTORY_DAYS):
        shop.day(day)
    models = []
    for number, half in enumerate(split.halves(history, SPEC.table)):
        (folder / str(number)).mkdir()
        models.append(SPEC.baseline(half, folder / str(number)))
    unseen = visits(shop, None, 0.0)
    measured = []
    for order in (models, models[::-1]):
        true = recalls(order, unseen)
        holdout = visits(shop, order[0], caused)
        live = recalls(order, holdout)
        advantages = {}
        for name, share in (("counted", 0.0), ("corrected", CAUSED_CLICKS), ("left_out", 1.0)):
            weighted = live * weights(holdout.clicked, share)
            advantages[name] = np.subtract(*weighted.mean(1)) - np.subtract(*true.mean(1))
        measured.append(
            {
                "clicked": holdout.clicked.mean(),
                "caused_of_clicked": holdout.caused,
                "inflation": live[0].mean() - true[0].mean(),
                "inflation_corrected": (live * weights(holdout.clicked))[0].mean() - true[0].mean(),
                **advantages,
            }
        )
    return measured


def run(shops: int, shares: tuple[float, ...]) -> dict:
    """Means over shops and roles, by the share of steps that are caused; `error` is the standard
    error of the advantages, over shops."""
    line = {}
    for caused in shares:
        measured: list[dict] = []
        for seed in range(FIRST_SEED, FIRST_SEED + shops):
            with tempfile.TemporaryDirectory() as folder:
                measured += one_shop(seed, caused, Path(folder))
        table = pl.DataFrame(measured)
        by_shop = table["corrected"].to_numpy().reshape(shops, 2).mean(axis=1)
        means = table.mean().row(0, named=True) | {"error": by_shop.std() / shops**0.5}
        line[f"{caused:g}"] = {name: round(float(mean), 4) for name, mean in means.items()}
        print(caused, line[f"{caused:g}"], flush=True)
    return line


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.incumbent", description=(__doc__ or "").splitlines()[0]
    )
    parser.parse_args()
    print(json.dumps(run(SHOPS, CAUSED)))


if __name__ == "__main__":
    main()
