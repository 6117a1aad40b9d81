"""How often does the flow watch roll a release back that is not worse, and how soon one that is?

`python -m benchmarks.watch` simulates shops whose visitors click (`demo/visitors.py`), with 5 %
between the days' readiness to click. Each week a co-visitation table that was fitted on everything
before goes live, and is watched each hour beside the table of the week before, by the flow's own
rule. The kinds of releases:

- `same`: the table of the week before goes on; `same, more visitors` in a shop twenty times as
  large.
- `0`: the new table, which is better; `0.15`, `0.3`, `0.6`: the new table, but this share of the
  visitors gets the answers meant for somebody else.
- `season`: the new table, and within its week a third of the assortment is replaced.

Clicks are drawn several times for each week. The last line is JSON. For each kind it has the mean
true fall of the clicks per answer, the share of the releases that was rolled back, and after how
many answers, in the median.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from demo import visitors
from demo.shop import Plan
from demo.visitors import Visitors
from kreislauf.clock import DAY_MS, HOUR_MS
from kreislauf.monitoring import release_clicks
from kreislauf.monitoring.release_clicks import Answers

SHOPS = 20
FIRST_SEED = 1_000
"""Of the shops; the rule's limits were chosen on the seeds from 0 to 9."""
WEEKS = 5
"""Weeks of a shop; releases are watched from the fourth on."""
DRAWS = 5
"""How often the clicks of a week are drawn."""
MOOD = 0.05
"""Standard deviation of the days' readiness to click, as a logarithm."""
DAYTIME = 0.2
"""Amplitude of the hours' readiness to click, as a logarithm."""
CROWD = 20
"""How many times the visitors of the others a large shop has: days are its only noise."""
SIZE = 20
"""Articles of an answer."""
SPOILED = (0.0, 0.15, 0.3, 0.6)
"""Shares of the visitors who get somebody else's answer."""


@dataclass(frozen=True)
class Week:
    """What the visitors of a week were shown, by step in the order of time."""

    times: np.ndarray
    """ms since 1970 UTC: (n,)."""
    users: np.ndarray
    """Number of each step's visitor, from 0: (n,)."""
    expected: np.ndarray
    """Expected clicks: (n,)."""

    def crowded(self) -> "Week":
        """A week with `CROWD` visitors in the place of each."""
        users = (self.users[:, None] * CROWD + np.arange(CROWD)).ravel()
        return Week(np.repeat(self.times, CROWD), users, np.repeat(self.expected, CROWD))

    def answers(self, rng: np.random.Generator) -> Answers:
        """The answers with clicks that are drawn: by day and hour, people are more or less ready
        to click."""
        day = (self.times - self.times[0]) // DAY_MS
        hour = self.times / HOUR_MS % 24
        mood = rng.normal(0, MOOD, int(day.max()) + 1)[day] + DAYTIME * np.sin(
            hour / 24 * 2 * np.pi
        )
        return Answers(self.times, self.users, rng.random(len(day)) < np.exp(mood) * self.expected)


@dataclass(frozen=True)
class CovisitationTable:
    """The articles that visitors looked at after each article, the most frequent first."""

    articles: np.ndarray
    """Article ids, ascending: (m,)."""
    answers: np.ndarray
    """(m, SIZE)."""
    popular: np.ndarray
    """Answer for an article that is not among them: (SIZE,)."""

    @classmethod
    def fit(cls, days: list[Visitors]) -> "CovisitationTable":
        """The table of these days."""
        looks = pl.concat(
            [pl.DataFrame({"user": d.session, "aid": d.offer.ids[d.last]}) for d in days]
        )
        popular = looks["aid"].value_counts(sort=True)["aid"].head(SIZE).to_numpy()
        pairs = looks.with_columns(after=pl.col("aid").shift(-1).over("user")).drop_nulls()
        counts = pairs.group_by("aid", "after").len().sort("len", "after", descending=True)
        lists = counts.group_by("aid").agg(pl.col("after").head(SIZE)).sort("aid")
        answers = np.tile(popular, (lists.height, 1))
        for row, articles in zip(answers, lists["after"], strict=True):
            row[: len(articles)] = articles
        return cls(lists["aid"].to_numpy(), answers, popular)

    def answer(self, day: Visitors) -> np.ndarray:
        """Answers to the steps of a day: article ids (n, SIZE)."""
        last = day.offer.ids[day.last]
        row = np.searchsorted(self.articles, last).clip(max=len(self.articles) - 1)
        is_seen = (self.articles[row] == last)[:, None]
        return np.where(is_seen, self.answers[row], self.popular)


def show(
    table: CovisitationTable, days: list[Visitors], spoiled: float, rng: np.random.Generator
) -> Week:
    """A week of answers, of which a share is `spoiled`."""
    parts = []
    for day in days:
        answers = table.answer(day)
        wrong = np.flatnonzero(np.isin(day.session, chosen(day.session, spoiled, rng)))
        answers[wrong] = answers[rng.permutation(wrong)]
        expected = day.expected_clicks(answers)
        parts.append(pl.DataFrame({"ts": day.time, "user": day.session, "expected": expected}))
    rows = pl.concat(parts).sort("ts", maintain_order=True)
    users = rows["user"].to_numpy() - int(rows["user"].min())  # type: ignore[arg-type]
    return Week(rows["ts"].to_numpy(), users, rows["expected"].to_numpy())


def chosen(sessions: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """A share of the sessions."""
    names = np.unique(sessions)
    return names[rng.random(len(names)) < share]


def answers_until_rollback(before: Week, live: Week, rng: np.random.Generator) -> int | None:
    """Answers of the `live` week when hourly looks call it worse; None if they never do."""
    reference = before.answers(rng)
    answers = live.answers(rng)
    looks = np.arange(live.times[0], live.times[-1] + HOUR_MS, HOUR_MS)
    for count in np.searchsorted(live.times, looks):
        if count < release_clicks.MIN_ANSWERS:
            continue
        if release_clicks.is_worse(answers.slice(0, count), reference):
            return int(count)
    return None


def releases(seed: int, season: bool) -> Iterator[tuple[str, Week, Week]]:
    """Each kind of release with the week before it and its own."""
    change_day = 7 * WEEKS
    if season:
        change_day = 21 + seed % 7
    plan = Plan(
        days=7 * WEEKS, sessions_per_day=400, articles=1_000, change_day=change_day, seed=seed
    )
    days = [*visitors.days(plan)]
    rng = np.random.default_rng([seed, 1])
    tables = [CovisitationTable.fit(days[: 7 * week]) for week in range(2, WEEKS)]
    weeks = [days[7 * week : 7 * week + 7] for week in range(2, WEEKS)]
    shown = [show(*week, 0.0, rng) for week in zip(tables, weeks, strict=True)]
    if season:
        yield "season", shown[0], shown[1]
        return
    for number in range(1, len(weeks)):
        same = show(tables[number - 1], weeks[number], 0.0, rng)
        yield "same", shown[number - 1], same
        yield "same, more visitors", shown[number - 1].crowded(), same.crowded()
        for share in SPOILED:
            live = show(tables[number], weeks[number], share, rng)
            yield f"{share:g}", shown[number - 1], live


def run(seeds: range) -> dict:
    """The dictionary of the JSON line."""
    rows = []
    for seed in seeds:
        for season in (False, True):
            for kind, before, live in releases(seed, season):
                fall = 1 - live.expected.mean() / before.expected.mean()
                for draw in range(DRAWS):
                    rng = np.random.default_rng([seed, 2, draw])
                    count = answers_until_rollback(before, live, rng)
                    rows.append({"kind": kind, "fall": fall, "answers": count})
        print(f"shop {seed} is done", flush=True)
    kinds = pl.DataFrame(rows, schema={"kind": pl.String, "fall": pl.Float64, "answers": pl.Int64})
    summary = kinds.group_by("kind", maintain_order=True).agg(
        releases=pl.len(),
        fall=pl.col("fall").mean().round(3),
        rolled_back=pl.col("answers").is_not_null().mean().round(4),
        answers=pl.col("answers").median(),
    )
    return {row.pop("kind"): row for row in summary.to_dicts()}


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.watch", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--first", type=int, default=FIRST_SEED, help="seed of the first shop")
    parser.add_argument("--shops", type=int, default=SHOPS)
    arguments = parser.parse_args()
    print(json.dumps(run(range(arguments.first, arguments.first + arguments.shops))))


if __name__ == "__main__":
    main()
