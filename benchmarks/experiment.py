"""Does an experiment end with the right verdict, and how soon?

`python -m benchmarks.experiment` simulates 2,000 tests each of a challenger that is no better, of
one that is better by the minimum effect, and of one that is worse by twice of it, on users of whom
a few are far busier than the others and whose clicks come late (`experiment_users.py`). Each test
is planned from two weeks of history. Every hour it is looked at for harm and missing users, and at
the planned looks for benefit, by the functions that the flow calls. As many releases are simulated
of which HOLD_BACK_SHARE of the users keep the version before. Then as many splits of users
are simulated, of which RATIO_USERS come, and the challenger's arm loses none, or 2 %. The last line
is JSON:

- `false_positive_rate`, `power`: share of tests with the verdict benefit, of no better challengers
  and of better ones.
- `false_harm_rate`: share of tests of no better challengers with the verdict harm.
- `users_over_fixed`: mean users of tests of better challengers, over those of a test of the same
  power without looks.
- `harm_stop_share`: mean part of the horizon after which worse challengers are stopped.
- `harm_found`: share of them that are stopped for harm.
- `ratio_mismatch_found`, `false_mismatch_rate`: share of the splits that are called a mismatch,
  where users are lost and where none are.
- `coverage`: share of the intervals of tests that were not stopped for harm that hold the true
  difference.
- `hold_back_false_harm`, `hold_back_harm_found`: share of releases that are rolled back in the week
  of their hold-back: of those that are no worse, and of those that are worse by what the plan says
  is probably seen.
- `cuped_variance_ratio`: mean variance of the difference at the horizon, over that without CUPED.
"""

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np
from scipy.special import ndtri

from benchmarks import experiment_users
from kreislauf.experiment import design, effect, sample_ratio
from kreislauf.experiment.design import Design
from kreislauf.experiment.effect import Estimate
from kreislauf.experiment.verdict import MIN_USERS, Gap, Look, Users, Verdict, judge

TESTS = 2_000
RELATIVE_EFFECT = 0.12
"""Minimum effect of the tests, as a share of the champion's clicks."""
SHARE = 0.5
HISTORY_USERS = 10_000
HISTORY_DAYS = 14
HOLD_BACK_SHARE = 0.05
HOLD_BACK_HISTORY_USERS = 20_000
RATIO_USERS = 500_000
"""Users of a test whose sample ratio is judged."""
RATIO_LOSS = 0.02
"""Share of the challenger's users that are lost."""


class Test(NamedTuple):
    """What came of a test."""

    outcome: str
    time: float
    """When it ended, as a share of the horizon."""
    users: float
    """Users until then, as a share of those until the horizon."""
    covered: float
    """Whether its interval has the true difference; NaN if it was stopped."""
    variance_ratio: float


def simulate(lift: float, seed: int) -> Test:
    """One test of a challenger that is clicked 1 + `lift` times as often."""
    rng = np.random.default_rng([seed, round(1_000 * lift) + 1_000])
    history = experiment_users.history(HISTORY_USERS, rng)
    plan = design.plan(history, HISTORY_DAYS, SHARE, RELATIVE_EFFECT)
    assert plan is not None
    hours = plan.days * experiment_users.HOURS_A_DAY
    of_challenger = rng.binomial(plan.users, SHARE)
    champion = experiment_users.hourly(plan.users - of_challenger, hours, 0.0, rng)
    challenger = experiment_users.hourly(of_challenger, hours, lift, rng)
    with np.errstate(divide="ignore", invalid="ignore"):
        estimate = effect.difference(champion, challenger)
    counts = np.stack([champion.users, challenger.users])
    hour, verdict = follow(plan, estimate, counts)
    covered = float("nan")
    if (
        verdict.low is not None
        and verdict.high is not None
        and verdict.outcome in ("benefit", "undecided")
    ):
        truth = lift * experiment_users.true_rate()
        covered = float(verdict.low <= truth <= verdict.high)
    return Test(
        verdict.outcome,
        (hour + 1) / hours,
        counts[:, hour].sum() / counts[:, -1].sum(),
        covered,
        float(estimate.variance[-1] / estimate.unadjusted_variance[-1]),
    )


def is_rolled_back(loss: float, seed: int) -> bool:
    """Whether a release is, that is worse by `loss` times the minimum effect of its hold-back."""
    rng = np.random.default_rng([seed, round(1_000 * loss), HOLD_BACK_HISTORY_USERS])
    history = experiment_users.history(HOLD_BACK_HISTORY_USERS, rng)
    plan = design.hold_back(history, HISTORY_DAYS, 1 - HOLD_BACK_SHARE)
    assert plan is not None
    lift = -loss * plan.minimum_effect / float(history.rate)
    hours = plan.days * experiment_users.HOURS_A_DAY
    kept = rng.binomial(plan.users, HOLD_BACK_SHARE)
    before = experiment_users.hourly(kept, hours, 0.0, rng)
    release = experiment_users.hourly(plan.users - kept, hours, lift, rng)
    with np.errstate(divide="ignore", invalid="ignore"):
        estimate = effect.difference(before, release)
    _, verdict = follow(plan, estimate, np.stack([before.users, release.users]))
    return verdict.outcome == "harm"


def follow(plan: Design, estimate: Estimate, counts: np.ndarray) -> tuple[int, Verdict]:
    """Look every hour until there is a verdict: the hour, and the verdict.

    Only planned looks and those that may end the test are judged; the others say nothing.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        is_known = design.is_precise(estimate) & (counts.min(axis=0) >= MIN_USERS)
        information = np.where(is_known, estimate.information, 0.0)
        is_harmful = is_known & design.is_harmful(estimate, design.progress(information, plan))
    planned: dict[int, int] = {}
    for hour, amount in enumerate(information):
        days = (hour + 1) / experiment_users.HOURS_A_DAY
        number = design.look_number(amount, days, plan)
        if number > max(planned.values(), default=0):
            planned[hour] = number
    is_mismatch = sample_ratio.is_mismatch(counts.sum(axis=0), counts[1], plan.share)
    looks = []
    for hour in sorted({*planned, *np.flatnonzero(is_harmful | is_mismatch).tolist()}):
        users = Users(champion=int(counts[0, hour]), challenger=int(counts[1, hour]))
        gap = Gap(**{name: float(values[hour]) for name, values in estimate._asdict().items()})
        looks.append(
            Look(
                number=planned.get(hour, 0),
                days=(hour + 1) / experiment_users.HOURS_A_DAY,
                at=hour,
                assigned=users,
                answered=users,
                kpi=gap,
            )
        )
        verdict = judge(plan, looks)
        if verdict.outcome != "running":
            return hour, verdict
    raise AssertionError("a test has to end at the horizon")


def ratio_found(loss: float, seed: int) -> bool:
    """Whether a test whose challenger loses users is called a mismatch after any user."""
    rng = np.random.default_rng([seed, round(1_000 * loss)])
    is_challenger = rng.random(RATIO_USERS) < SHARE
    stays = ~is_challenger | (rng.random(RATIO_USERS) >= loss)
    challenger = is_challenger[stays].cumsum()
    users = np.arange(1, len(challenger) + 1)
    return bool(sample_ratio.is_mismatch(users, challenger, SHARE).any())


def fixed_users(plan_power: float) -> float:
    """Users of a test without looks, as a share of those at the horizon of one with looks."""
    without_looks = float(ndtri(1 - design.ERROR_RATE) + ndtri(plan_power))
    return (without_looks / design.drift()) ** 2


def summarise(same: list[Test], better: list[Test], worse: list[Test]) -> dict[str, float]:
    """Shares and means of the tests of the three kinds of challengers."""

    def share(tests: list[Test], outcome: str) -> float:
        return sum(test.outcome == outcome for test in tests) / len(tests)

    covered = [test.covered for test in same + better if not np.isnan(test.covered)]
    stops = [test.time for test in worse if test.outcome == "harm"]
    return {
        "false_positive_rate": share(same, "benefit"),
        "false_harm_rate": share(same, "harm"),
        "power": share(better, "benefit"),
        "users_over_fixed": float(
            np.mean([test.users for test in better]) / fixed_users(design.POWER)
        ),
        "harm_stop_share": float(np.mean(stops)),
        "harm_found": share(worse, "harm"),
        "coverage": float(np.mean(covered)),
        "cuped_variance_ratio": float(np.mean([test.variance_ratio for test in better])),
    }


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.experiment", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--tests", type=int, default=TESTS, help="tests of each kind")
    parser.add_argument("--seed", type=int, default=0, help="of the first test")
    arguments = parser.parse_args()
    seeds = range(arguments.seed, arguments.seed + arguments.tests)
    lifts = (0.0, RELATIVE_EFFECT, -2 * RELATIVE_EFFECT)
    with ProcessPoolExecutor() as pool:
        tests = [list(pool.map(partial(simulate, lift), seeds, chunksize=20)) for lift in lifts]
        rollbacks = [
            np.mean(list(pool.map(partial(is_rolled_back, loss), seeds, chunksize=20)))
            for loss in (0.0, 1.0)
        ]
        mismatch_rates = [
            np.mean(list(pool.map(partial(ratio_found, loss), seeds, chunksize=20)))
            for loss in (RATIO_LOSS, 0.0)
        ]
    result = summarise(*tests)
    names = ("ratio_mismatch_found", "false_mismatch_rate")
    result |= zip(names, map(float, mismatch_rates), strict=True)
    names = ("hold_back_false_harm", "hold_back_harm_found")
    result |= zip(names, map(float, rollbacks), strict=True)
    print(json.dumps({name: round(value, 4) for name, value in result.items()}))


if __name__ == "__main__":
    main()
