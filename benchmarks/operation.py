"""The loop as it is deployed: a look every hour, for weeks, on shops in which one thing happens.

`python -m benchmarks.operation` simulates SEEDS shops on seeds that chose no rule. In each,
WEEKS weeks pass without any change. Then, in other futures of the same shop, each kind of change in
benchmarks/worlds.py and benchmarks/trackers.py begins at a random hour, and stays. Each hour the
flow's own steps look at the data: tails, window, diagnosis, policy. What the policy says is done:
stretches are left out, trainings begin at once, as on each Monday at three, and the gate's own code
decides. The champion is the co-visitation table, so that thousands of trainings take minutes.

- A false alarm is an alarm that the policy raises in a week without change: a verdict other than
  `stable`, `undecided` or `not enough data` that no overlapping window has raised before. Because
  a shop learns more from more rows, `concept drift` is none if a table trained then answers the
  next two weeks better, by half of `min_gain`.
- The diagnosis of a kind is right if the first verdict after which something is done, `data fault`
  or `concept drift`, is right; where nothing is done, the first `covariate shift`. `first_right`
  takes the first verdict of all. A person who is asked whether an assortment is new answers
  truthfully after ANSWER_HOURS.
- The oracle knows the kind, the hour's own shop before and after it, and sees every session at its
  end: CUSUM on the exact likelihood ratio of what a session is (`oracle.py`), with one false alarm
  in 100 weeks. No detector of the same sessions needs fewer hours on the whole (Moustakides,
  "Optimal stopping times for detecting changes in distributions", 1986).
- A drift is answered if a promotion follows within 72 hours. Only drifts that cost at least a tenth
  of the live quality count.

The last line is JSON. `--seeds`, `--weeks` and `--first` make it shorter or choose other shops.
"""

import argparse
import copy
import json
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass

import numpy as np
import polars as pl

from benchmarks import oracle, trackers, worlds
from benchmarks.timeline import SETTINGS, Timeline, remembered_answers
from benchmarks.worlds import Kind
from demo.shop import Shop
from kreislauf.clock import DAY_MS, HOUR_MS

FIRST_SEED = 7_000
SEEDS = 20
WEEKS = 12
ARTICLES = 500
SESSIONS = 600
CALM_SESSIONS = 300
"""Of a shop; sessions a day, of one that stays calm for weeks fewer: it takes long."""
HISTORY = 104
"""Days before the first look."""
HORIZON_HOURS = {"drift": 96, "fault": 216}
"""Hours after a change in which the loop is watched."""
LEAD_HOURS = 2
"""Hours before a change in which the loop is watched."""
AFTER_HOURS = 48
"""Hours in which the loop is watched after it has said what is the matter."""
ANSWER_HOURS = 12
ANSWERED_HOURS = 72
COSTLY = 0.1
"""Share of the live quality from which on a drift has to be answered."""
PAYING_MS = 14 * DAY_MS
"""Time after an alarm in which a training has to pay, ms."""
PROCESSES = 2
DRIFT = ("assortment", "popularity", "relations")
ASKED = ("whole assortment",)
ACTED = ("data fault", "concept drift")
"""Verdicts after which something is done."""
WATCHED = (*ACTED, "covariate shift")


@dataclass
class Outcome:
    """What the loop made of one future."""

    seed: int
    kind: str
    alarms: list[tuple[float, str]]
    """Hours after the change, and verdict, of each alarm."""
    promotions: list[float]
    """Hours after the change."""
    trainings: list[float]
    asked: float | None = None
    """Hours after the change until a person was asked."""
    oracle_hours: float | None = None
    cost: float = 0.0
    """Share of the live quality that the change costs."""
    trainings_that_pay: int = 0
    """Alarms `concept drift` in calm weeks after which a training would have paid."""
    waits: int = 0
    """Hours in which trainings had to wait."""


def kinds() -> dict[str, tuple[Kind, tuple[str, ...]]]:
    """Each kind with the verdicts that are right."""
    former = {name: (kind, (kind.verdict,)) for name, kind in worlds.KINDS.items()}
    del former["none"]
    return former | trackers.KINDS


@remembered_answers()
def calm_weeks(seed: int, weeks: int) -> list[Outcome]:
    """A future of a shop in which nothing happens."""
    shop = worlds.shop(seed, ARTICLES, CALM_SESSIONS)
    history = worlds.days(shop, 0, HISTORY, np.random.default_rng(seed))
    begin = worlds.at(HISTORY)
    last = HISTORY + 7 * weeks + 1
    course = Timeline.start(history).with_rows(future(shop, Kind("stable"), last, begin, seed))
    pays = 0
    for hour in range(1, 24 * 7 * weeks + 1):
        now = begin + hour * HOUR_MS
        alarms = len(course.alarms)
        course.look(now)
        if len(course.alarms) > alarms and course.alarms[-1][1] == "concept drift":
            pays += course.true_gain(now, now + PAYING_MS) >= SETTINGS.min_gain / 2
    outcome = summary(course, seed, "none", begin)
    outcome.trainings_that_pay = pays
    return [outcome]


@remembered_answers()
def changes(seed: int) -> list[Outcome]:
    """A future of a shop for each kind."""
    shop = worlds.shop(seed, ARTICLES, SESSIONS)
    history = worlds.days(shop, 0, HISTORY, np.random.default_rng(seed))
    start = Timeline.start(history)
    outcomes = []
    for number, (name, (kind, verdicts)) in enumerate(kinds().items()):
        hours = int(np.random.default_rng([seed, number]).integers(8 * 24, 15 * 24))
        outcomes.append(change(shop, start, name, kind, verdicts, hours, seed))
    return outcomes


def change(
    shop: Shop,
    start: Timeline,
    name: str,
    kind: Kind,
    verdicts: tuple[str, ...],
    hours: int,
    seed: int,
) -> Outcome:
    """A future in which `kind` begins so many `hours` after the history."""
    begin = worlds.at(HISTORY) + hours * HOUR_MS
    horizon = HORIZON_HOURS["drift" if name in DRIFT else "fault"]
    rows = future(shop, kind, HISTORY + (hours + horizon) // 24 + 2, begin, seed)
    history = start.rows
    course = start.fork().with_rows(rows)
    cost = course.cost(rows, begin)
    oracle_hours = oracle.hours(course.champion.probe, history, rows, begin)
    answer = None
    for hour in range(-LEAD_HOURS, horizon + 1):
        course.look(begin + hour * HOUR_MS)
        if course.questions and answer is None:
            answer = hour + ANSWER_HOURS
        if answer == hour and name in ASKED:
            course.trust(course.questions[0][1])
        if name in DRIFT and any(at > begin for at in course.promotions):
            break
        right = [at for at, verdict in course.alarms if at >= begin and verdict in verdicts]
        lasting = right and begin + hour * HOUR_MS - right[0] > AFTER_HOURS * HOUR_MS
        if lasting and name not in DRIFT + ASKED:
            break
    outcome = summary(course, seed, name, begin)
    outcome.oracle_hours = oracle_hours
    outcome.cost = cost
    return outcome


def summary(course: Timeline, seed: int, kind: str, change: int) -> Outcome:
    """What came of a course."""

    def after(at: int) -> float:
        return (at - change) / HOUR_MS

    asked = None
    if course.questions:
        asked = after(course.questions[0][0])
    return Outcome(
        seed=seed,
        kind=kind,
        alarms=[(after(at), verdict) for at, verdict in course.alarms],
        promotions=[after(at) for at in course.promotions],
        trainings=[after(at) for at in course.trainings],
        asked=asked,
        waits=course.waits,
    )


def future(shop: Shop, kind: Kind, last: int, change: int, seed: int) -> pl.DataFrame:
    """Events from day `HISTORY` to `last` (exclusive), if `kind` happens at `change` (ms); `shop`
    stays."""
    before = copy.deepcopy(shop)
    before.rng = np.random.default_rng([seed, 1])
    rng = np.random.default_rng([seed, 2])
    calm = worlds.days(before, HISTORY, last, rng)
    if kind.verdict == "stable":
        return calm
    after = copy.deepcopy(shop)
    after.rng = np.random.default_rng([seed, 3])
    if kind.change:
        kind.change(after)
    began = pl.col("ts").min().over("session")
    first = (change - worlds.at(0)) // DAY_MS
    changed = worlds.days(after, first, last, rng).filter(began >= change)
    changed = changed.with_columns(pl.col("session") + 400_000)
    if kind.fault:
        changed = kind.fault(after, rng)(changed).select(calm.columns)
    return pl.concat([calm.filter(began < change), changed]).sort("session", "ts")


def line(outcomes: list[Outcome], weeks: int) -> dict:
    """The JSON line."""
    by_kind = {}
    faults = []
    over_oracle = []
    answered = []
    for name, (_, verdicts) in kinds().items():
        mine = [outcome for outcome in outcomes if outcome.kind == name]
        first = [diagnosis(o) for o in mine]
        right = [verdict in verdicts for _, verdict in first]
        first_right = [diagnosis(o, WATCHED)[1] in verdicts for o in mine]
        detected = [hour for hour, _ in first if hour is not None]
        promoted = [any(hour > 0 for hour in o.promotions) for o in mine]
        entry: dict = {
            "right": round(float(np.mean(right)), 3),
            "first_right": round(float(np.mean(first_right)), 3),
            "detected": round(len(detected) / len(mine), 3),
            "median_hours": median(detected),
            "median_oracle_hours": median([o.oracle_hours for o in mine if o.oracle_hours]),
            "promoted": round(float(np.mean(promoted)), 3),
            "cost": round(float(np.mean([o.cost for o in mine])), 3),
            "verdicts": dict(Counter(verdict for _, verdict in first)),
        }
        if name in DRIFT:
            within = [any(0 < h <= ANSWERED_HOURS for h in o.promotions) for o in mine]
            asked = [any(0 < h <= ANSWERED_HOURS for h in o.trainings) for o in mine]
            entry |= {"answered_72h": float(np.mean(within)), "asked_72h": float(np.mean(asked))}
            costly = [o.cost >= COSTLY for o in mine]
            answered += [a for a, c in zip(within, costly, strict=True) if c]
        if "data fault" in verdicts and name not in ASKED:
            faults += promoted
            both = zip(first, mine, strict=True)
            over_oracle += [
                hour - o.oracle_hours
                for (hour, _), o in both
                if hour is not None and o.oracle_hours is not None
            ]
        by_kind[name] = entry
    calm = [outcome for outcome in outcomes if outcome.kind == "none"]
    alarms = sum(len(outcome.alarms) - outcome.trainings_that_pay for outcome in calm)
    return {
        "false_alarms_per_week": round(alarms / (weeks * len(calm)), 4),
        "trained_on_fault": round(float(np.mean(faults)), 4),
        "drift_answered_72h": round(float(np.mean(answered)), 4) if answered else None,
        "diagnosis_right": min(entry["right"] for entry in by_kind.values()),
        "hours_over_oracle": median(over_oracle),
        "quiet_weeks": weeks * len(calm),
        "quiet_promotions": sum(len(o.promotions) for o in calm),
        "quiet_waits": sum(o.waits for o in calm),
        "costly_drifts": len(answered),
        "by_kind": by_kind,
    }


def diagnosis(outcome: Outcome, verdicts: tuple[str, ...] = ACTED) -> tuple[float | None, str]:
    """Hours after the change, and verdict, of the first alarm with one of the `verdicts`; of the
    first one without such a one, and `stable` without any."""
    alarms = [alarm for alarm in outcome.alarms if alarm[0] >= 0]
    first = [alarm for alarm in alarms if alarm[1] in verdicts] + alarms
    if not first:
        return None, "stable"
    return first[0]


def median(values: list) -> float | None:
    """Rounded to a tenth; None without any."""
    if not values:
        return None
    return round(float(np.median(values)), 1)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.operation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--first", type=int, default=FIRST_SEED)
    parser.add_argument("--weeks", type=int, default=WEEKS)
    given = parser.parse_args()
    seeds = range(given.first, given.first + given.seeds)
    outcomes = []
    with ProcessPoolExecutor(PROCESSES) as pool:
        jobs = [pool.submit(changes, seed) for seed in seeds]
        jobs += [pool.submit(calm_weeks, seed, given.weeks) for seed in seeds]
        for job in jobs:
            for outcome in job.result():
                outcomes.append(outcome)
                print(json.dumps(asdict(outcome)), flush=True)
    print(json.dumps(line(outcomes, given.weeks)))


if __name__ == "__main__":
    main()
