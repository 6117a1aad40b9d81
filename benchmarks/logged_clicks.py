"""Do clicks on what a live model has shown rank models as their true clicks would?

`python -m benchmarks.logged_clicks` simulates shops, and in each of them seven recommenders: tables
of all earlier visits, of the newest day, of the oldest days, and of each half of the visits; the
most visited articles; and the answers of the first table with the best article last. Visitors click
what they are shown, as `demo/visitors.py` says, so each model's true clicks per answer are computed
without noise. Each model is live once. Then all of them are ranked by what is recorded meanwhile:

- `clicks`: share of the clicks on the live model's answers whose article the model has in its own.
- `clicks_by_position`: the same, each click weighted by one over the probability that somebody
  looks at its position (Joachims, Swaminathan and Schnabel, "Unbiased Learning-to-Rank with Biased
  Feedback", 2017).
- `visits`: share of the next articles of the visits, whatever was shown, that the model has.
- `visits_by_position`: the same, each counted with the probability that somebody looks at the
  position that the article has in the model's answer.

The last line is JSON, for each of them: `tau`, Kendall's rank correlation with the true clicks, the
mean over shops and live models; and `live_first`, the share of the cases in which the live model
comes first, which is one in seven if nothing favours it.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import polars as pl
from scipy.stats import kendalltau

from demo import visitors
from demo.shop import START_MS, Plan, simulate
from demo.visitors import Visitors, examination
from kreislauf.clock import DAY_MS
from kreislauf.evaluation import scoring, split
from models.session_recommender import SPEC
from models.session_recommender.features import LENGTH, PADDING

SHOPS = 10
FIRST_SEED = 500
HISTORY_DAYS = 14
JUDGED_DAYS = 2
OLD_DAYS = 4
"""Days from which the oldest table has learnt."""


def one_shop(seed: int, folder: Path) -> list[dict]:
    """A row for each record and each model that is live: `record`, `tau` and `live_first`."""
    days = HISTORY_DAYS + JUDGED_DAYS
    plan = Plan(days=days, sessions_per_day=500, articles=1_000, change_day=99, seed=seed)
    rows = simulate(plan)
    rows = rows.filter(pl.col("ts") < START_MS + HISTORY_DAYS * DAY_MS)
    tables = learn(rows, folder)
    rates = []
    records = []
    for day in [*visitors.days(plan, seed)][HISTORY_DAYS:]:
        answers = answer(tables, rows, day)
        rates.append([day.expected_clicks(shown).sum() for shown in answers])
        records.append([measure(day, answers, live) for live in range(len(answers))])
    true_clicks = np.sum(rates, axis=0)
    measured = []
    for live in range(len(true_clicks)):
        for name in records[0][live]:
            values = sum(of_day[live][name] for of_day in records)
            measured.append(
                {
                    "record": name,
                    "tau": kendalltau(values, true_clicks).statistic,
                    "live_first": float(np.argmax(values) == live),
                }
            )
    return measured


def learn(rows: pl.DataFrame, folder: Path) -> list[Path]:
    """Tables of different parts of the visits, as ONNX files."""
    day = (pl.col("ts") - START_MS) // DAY_MS
    parts = [
        rows,
        rows.filter(day == HISTORY_DAYS - 1),
        rows.filter(day < OLD_DAYS),
        *split.halves(rows, SPEC.table),
    ]
    files = []
    for number, part in enumerate(parts):
        (folder / str(number)).mkdir()
        files.append(SPEC.baseline(part, folder / str(number)))
    return files


def answer(tables: list[Path], rows: pl.DataFrame, day: Visitors) -> list[np.ndarray]:
    """What each model shows in each step: article ids, best first, each (n, k)."""
    inputs = {
        name: np.full((len(day), LENGTH), PADDING, np.int64)
        for name in ("article_ids", "types", "times")
    }
    for row, slots in enumerate(day.visited):
        newest = slots[slots >= 0][-LENGTH:]
        inputs["article_ids"][row, : len(newest)] = day.offer.ids[newest]
        inputs["types"][row, : len(newest)] = 0
    answers = [scoring.answer(onnx, inputs)["answers"] for onnx in tables]
    count = answers[0].shape[1]
    popular = rows["aid"].value_counts(sort=True)["aid"].to_numpy()[:count]
    return [*answers, np.tile(popular, (len(day), 1)), answers[0][:, ::-1]]


def measure(day: Visitors, answers: list[np.ndarray], live: int) -> dict[str, np.ndarray]:
    """What is recorded while a model is live says of each model: sums over the day, (models,)."""
    looks = examination(answers[live].shape[1])
    position = day.clicks(answers[live])
    is_clicked = position >= 0
    clicked = answers[live][is_clicked, position[is_clicked]]
    goes_on = day.session[1:] == day.session[:-1]
    following = day.offer.ids[day.last[1:]][goes_on]
    of_clicks = []
    of_visits = []
    for shown in answers:
        of_clicks.append((shown[is_clicked] == clicked[:, None]).any(axis=1))
        of_visits.append(shown[:-1][goes_on] == following[:, None])
    return {
        "clicks": np.array([hits.sum() for hits in of_clicks]),
        "clicks_by_position": np.array(
            [(hits / looks[position[is_clicked]]).sum() for hits in of_clicks]
        ),
        "visits": np.array([hits.any(axis=1).sum() for hits in of_visits]),
        "visits_by_position": np.array([(hits * looks).sum() for hits in of_visits]),
    }


def run(shops: int) -> dict[str, dict[str, float]]:
    """Means over shops and live models, by record."""
    measured: list[dict] = []
    for seed in range(FIRST_SEED, FIRST_SEED + shops):
        with tempfile.TemporaryDirectory() as folder:
            measured += one_shop(seed, Path(folder))
        print(f"shop {seed}", flush=True)
    means = pl.DataFrame(measured).group_by("record", maintain_order=True).mean()
    return {
        row.pop("record"): {name: round(value, 3) for name, value in row.items()}
        for row in means.iter_rows(named=True)
    }


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.logged_clicks", description=(__doc__ or "").splitlines()[0]
    )
    parser.parse_args()
    print(json.dumps(run(SHOPS)))


if __name__ == "__main__":
    main()
