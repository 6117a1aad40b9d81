"""How long an experiment lasts, and what ends it: chosen before the first user is asked."""

import math
from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict
from scipy.optimize import brentq
from scipy.special import ndtri

from kreislauf.evaluation import sequences
from kreislauf.evaluation.sequences import Number
from kreislauf.experiment import spending
from kreislauf.experiment.effect import Estimate, Moments
from kreislauf.release.releases import HOLD_BACK_DAYS

ERROR_RATE = 0.025
"""Probability that a challenger that is no better is called better."""
POWER = 0.9
"""Probability that one that is better by the minimum effect is called better."""
LOOKS = 5
"""Planned looks at the benefit, the last one at the horizon."""
HARM_ERROR_RATE = 0.01
"""Probability that a challenger that does no harm is ever stopped for harm."""
LARGEST_ERROR = 0.15
"""Largest standard error of the rate of an arm that is judged, as a share of the rate: that of
about 45 users who reacted once."""
TIGHTEST = 0.25
"""Share of the planned information at which the bound of harm is tightest."""
EARLY = 0.01
"""Share at which a second bound is: it finds great harm at once, and harm at all if far less comes
than was planned."""
EARLY_ERROR_RATE = 0.002
"""Part of `HARM_ERROR_RATE` that is spent on the second bound."""


class Design(BaseModel):
    """What is decided about an experiment before it begins."""

    model_config = ConfigDict(frozen=True)

    share: float
    """Share of the users that get what is judged: the challenger or, with a hold-back, the
    release."""
    minimum_effect: float
    """Difference of the rates that is worth finding; with a hold-back, the one that it finds."""
    information: float
    """One over the variance of the difference at the horizon."""
    users: int
    """Number of users, about, that bring as much."""
    days: int
    """Days, about, until so many have come: the horizon."""
    relative_effect: float = 0.0
    """`minimum_effect` as a share of the rate; 0 in plans of earlier versions of this library, and
    if less than a day says how many users come."""
    is_hold_back: bool = False
    """Whether only days count for the planned looks, however much is known: a week has all of its
    days."""


def plan(history: Moments, days: float, share: float, relative_effect: float) -> Design | None:
    """The design for a challenger that gets `share` of the users, 0 to 1 exclusive, and shall be
    better by `relative_effect`, 0.03 for 3 %.

    `history` has the users of the last `days`, all in one arm. As many are expected to come in as
    many days, and that what they did before does not help. Returns None if so few of them have
    reacted that nobody can say how long it takes.
    """
    user_variance = _user_variance(history)
    if user_variance is None:
        return None
    effect = float(history.rate) * relative_effect
    information = (drift() / effect) ** 2
    users = information * user_variance / (share * (1 - share))
    return Design(
        share=share,
        minimum_effect=effect,
        information=information,
        users=math.ceil(users),
        days=max(1, math.ceil(users / int(history.users) * days)),
        relative_effect=relative_effect,
    )


def hold_back(history: Moments, days: float, share: float) -> Design | None:
    """The design for a release that `share` of the users get, 0 to 1 exclusive, while the others
    keep the version before for `HOLD_BACK_DAYS`. A fall by the minimum effect is found until then
    with a probability of about `POWER`.

    The history, and when None is returned, are as in `plan`.
    """
    user_variance = _user_variance(history)
    if user_variance is None:
        return None
    users = int(history.users) * HOLD_BACK_DAYS / days
    information = users * share * (1 - share) / user_variance
    bound = float(harm_errors(1 / TIGHTEST))
    effect = (bound + float(ndtri(POWER))) / math.sqrt(information)
    relative_effect = 0.0
    if days >= 1:
        relative_effect = effect / float(history.rate)
    return Design(
        share=share,
        minimum_effect=effect,
        information=information,
        users=math.ceil(users),
        days=HOLD_BACK_DAYS,
        relative_effect=relative_effect,
        is_hold_back=True,
    )


def _user_variance(history: Moments) -> float | None:
    """Variance of what one user adds to the rate; None if too few have reacted to say."""
    rate = float(history.rate)
    weights = np.array([1, -rate, 0, 0]) / history.means[1]
    variance = float(weights @ history.covariance @ weights)
    if not 0 < variance / int(history.users) <= (LARGEST_ERROR * rate) ** 2:
        return None
    return variance


def drift() -> float:
    """The difference that looks at equal distances find with the probability `POWER`, in standard
    errors at the horizon."""
    fractions = [number / LOOKS for number in range(1, LOOKS + 1)]
    rates = [spending.spent(fraction, ERROR_RATE) for fraction in fractions]
    bounds = spending.bounds(fractions, rates)
    without_looks = float(ndtri(1 - ERROR_RATE) + ndtri(POWER))
    return brentq(
        lambda value: spending.power(fractions, bounds, value) - POWER,
        without_looks,
        2 * without_looks,
    )


def is_precise(estimate: Estimate) -> np.ndarray:
    """Whether enough users have reacted for the difference to be nearly normal: an array of the
    shape of the estimate."""
    return (estimate.variance > 0) & (estimate.error <= LARGEST_ERROR)


def is_harmful(estimate: Estimate, progress: np.ndarray) -> np.ndarray:
    """Whether the difference is surely below 0, at all looks together: an array of the shape of the
    estimate. `progress` is that of the KPI, also for other rates."""
    return estimate.difference < harm_bound(estimate.variance, progress)


def harm_bound(variance: Number, progress: Number) -> Number:
    """The difference below which harm is proven, for this `variance` of it; `progress` as in
    `is_harmful`."""
    return -harm_errors(progress) * np.sqrt(variance)


def harm_errors(progress: Number) -> Number:
    """How many standard errors below 0 harm is proven: by either of two sequences, which share the
    error rate."""
    late = sequences.standard_errors(progress, HARM_ERROR_RATE - EARLY_ERROR_RATE)
    early = sequences.standard_errors(progress * TIGHTEST / EARLY, EARLY_ERROR_RATE)
    return np.minimum(late, early)


def progress(information: Number, design: Design) -> Number:
    """How far the experiment is: 1 where the bound of harm is tightest."""
    return information / (TIGHTEST * design.information)


def look_number(information: float, days: float, design: Design) -> int:
    """Number of the newest planned look that is due: by what is known or, if less came than was
    thought, by the `days` since the beginning. 0 before the first one."""
    progress = days / design.days
    if not design.is_hold_back:
        progress = max(information / design.information, progress)
    return min(LOOKS, int(LOOKS * progress))


def is_final(information: float, number: int, design: Design) -> bool:
    """Whether the planned look `number`, from 1, is the last one: at the horizon, or with all the
    information before it."""
    if design.is_hold_back:
        return number >= LOOKS
    return number >= LOOKS or information >= design.information


def benefit_bounds(
    information: Sequence[float], numbers: Sequence[int], design: Design
) -> list[float]:
    """The z of each planned look until now from which on the benefit is proven. `information` has
    that of each, and grows; `numbers` are those of the looks, of which some may be missing."""
    rates = []
    for number, amount in zip(numbers, information, strict=True):
        fraction = amount / design.information
        if design.is_hold_back:
            fraction = number / LOOKS
        if is_final(amount, number, design):
            fraction = 1.0
        rates.append(spending.spent(fraction, ERROR_RATE))
    return spending.bounds(information, rates)
