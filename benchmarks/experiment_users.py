"""Simulated users of an experiment: a few are far busier than the others, busy ones click more, and
clicks come late."""

from dataclasses import dataclass
from functools import cache

import numpy as np

from kreislauf.experiment.effect import Moments

HOURS_A_DAY = 24
ANSWERS = 4.0
"""Median number of answers of a user."""
ACTIVITY = 0.8
"""Standard deviation of the logarithm of a user's number of answers."""
CLICKS = 0.08
"""Median share of the answers that a user clicks."""
LIKING = 0.6
"""Standard deviation of the logarithm of that share."""
CORRELATION = 0.3
"""Correlation of the two logarithms."""
MOST_CLICKS = 0.6
"""Most of the answers that anybody clicks."""
STAY = 40.0
"""Hours, from a user's first answer on, in most of which the others lie."""
RETURNING = 0.6
"""Share of the users who were there before the experiment."""
DELAY = 0.5
"""Hours after which a click is heard of, on average."""
MATURITY = 1.0
"""Hours after which an answer counts."""


@dataclass(frozen=True)
class Traits:
    """What users are like, each an array (n,)."""

    answers: np.ndarray
    """Expected number of answers."""
    clicks: np.ndarray
    """Probability of a click on an answer of the champion."""


def traits(count: int, rng: np.random.Generator) -> Traits:
    """Users drawn at random."""
    activity, rest = rng.standard_normal((2, count))
    liking = CORRELATION * activity + np.sqrt(1 - CORRELATION**2) * rest
    clicks = np.minimum(CLICKS * np.exp(LIKING * liking), MOST_CLICKS)
    return Traits(ANSWERS * np.exp(ACTIVITY * activity), clicks)


@cache
def true_rate() -> float:
    """Clicks per answer of the champion, by four million users."""
    users = traits(4_000_000, np.random.default_rng(0))
    return float((users.answers * users.clicks).sum() / users.answers.sum())


def history(count: int, rng: np.random.Generator) -> Moments:
    """The moments of users before the experiment, as those of one arm."""
    users = traits(count, rng)
    answers = rng.poisson(users.answers)
    clicks = rng.binomial(answers, users.clicks)
    there = answers > 0
    nothing = np.zeros(there.sum())
    return Moments.of(np.column_stack([clicks[there], answers[there], nothing, nothing]))


def hourly(count: int, hours: int, lift: float, rng: np.random.Generator) -> Moments:
    """The moments of an arm, after each hour, whose `count` users come evenly in these `hours`;
    they click 1 + `lift` times as often as on the champion's answers."""
    users = traits(count, rng)
    earlier = rng.poisson(users.answers * (rng.random(count) < RETURNING))
    earlier_clicks = rng.binomial(earlier, users.clicks)
    answers = rng.poisson(users.answers)
    user = np.repeat(np.arange(count), answers)
    begin = np.sort(rng.random(count)) * hours
    shown = begin[user] + rng.exponential(STAY, len(user)) * rng.random(len(user))
    is_clicked = rng.random(len(user)) < (users.clicks * (1 + lift))[user]
    feedback = np.maximum(shown + MATURITY, shown + rng.exponential(DELAY, len(user)))
    time = np.concatenate([shown + MATURITY, feedback[is_clicked]])
    of_user = np.concatenate([user, user[is_clicked]])
    hit = np.concatenate([np.zeros(len(user)), np.ones(is_clicked.sum())])
    before = np.column_stack([earlier_clicks, earlier]).astype(float)
    return cumulate(of_user, time, hit, before, hours)


def cumulate(
    user: np.ndarray, time: np.ndarray, hit: np.ndarray, before: np.ndarray, hours: int
) -> Moments:
    """Moments after each of the `hours`, of events that are either a trial or a `hit` of a user.

    A user counts from the first trial on. `before` are hits and trials of each user (n, 2).
    """
    order = np.lexsort((time, user))
    user, time, hit = user[order], time[order], hit[order]
    first = np.r_[True, user[1:] != user[:-1]]
    step = np.column_stack([hit, 1 - hit])
    total = step.cumsum(axis=0) - step
    state = total - np.maximum.accumulate(np.where(first[:, None], total, 0))
    hour = np.clip(np.ceil(time).astype(int) - 1, 0, hours)
    earlier = before[user]
    changes = np.zeros((len(user), 4, 4))
    changes[:, :2, :2] = (
        state[:, :, None] * step[:, None, :]
        + step[:, :, None] * state[:, None, :]
        + step[:, :, None] * step[:, None, :]
    )
    changes[:, :2, 2:] = step[:, :, None] * earlier[:, None, :]
    changes[:, 2:, :2] = changes[:, :2, 2:].swapaxes(1, 2)
    changes[first, 2:, 2:] = earlier[first, :, None] * earlier[first, None, :]
    numbers = np.column_stack([step, earlier * first[:, None]])

    def by_hour(values: np.ndarray) -> np.ndarray:
        flat = values.reshape(len(values), -1)
        sums = np.stack([np.bincount(hour, column, hours + 1) for column in flat.T], axis=1)
        return sums[:hours].cumsum(axis=0).reshape(hours, *values.shape[1:])

    return Moments(by_hour(first.astype(float)), by_hour(numbers), by_hour(changes))
