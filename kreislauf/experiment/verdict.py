"""What a look at an experiment says: go on, or why it has ended."""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict

from kreislauf.evaluation import sequences
from kreislauf.experiment import design, sample_ratio, spending
from kreislauf.experiment.design import Design
from kreislauf.experiment.effect import Estimate

Outcome = Literal["running", "benefit", "harm", "mismatch", "undecided"]
MIN_USERS = 200
"""Fewest users of either arm whose mean is nearly normal."""
PATIENCE = 2
"""Horizons after which a test ends in which nothing could be judged."""
GROWTH = 1.0001
"""Least ratio of the information of two planned looks."""
CONFIDENCE = 0.95
"""Confidence of the intervals that are shown."""


class Parts(NamedTuple):
    """What the two versions of an experiment are called."""

    judged: str
    """The version that is judged."""
    champion: str
    """The one that stays if nothing is proven."""


A_B_TEST = Parts("challenger", "champion")
HOLD_BACK = Parts("release", "release")


class Gap(BaseModel):
    """The challenger's rate beside the champion's, as `Estimate` has it. In a hold-back the release
    counts as challenger, and the version before as champion."""

    model_config = ConfigDict(frozen=True)

    difference: float
    variance: float
    unadjusted_variance: float
    champion_rate: float
    error: float

    @property
    def information(self) -> float:
        """How much is known: one over the variance."""
        return 1 / self.variance

    @property
    def z(self) -> float:
        """The difference in its standard errors."""
        return self.difference / math.sqrt(self.variance)

    @property
    def is_known(self) -> bool:
        """Whether enough users of both arms have reacted."""
        return bool(design.is_precise(self.estimate())) and self.champion_rate > 0

    def estimate(self) -> Estimate:
        """The same numbers, for functions of many."""
        return Estimate(*map(np.asarray, self.model_dump().values()))


class Users(BaseModel):
    """Numbers of users, named as in `Gap`."""

    model_config = ConfigDict(frozen=True)

    champion: int
    challenger: int

    @property
    def all(self) -> int:
        """Those of both arms."""
        return self.champion + self.challenger


class Look(BaseModel):
    """What was seen of an experiment at one time."""

    model_config = ConfigDict(frozen=True)

    number: int
    """Number of the planned look, from 1; 0 in between."""
    days: float
    """Days since the beginning of the experiment."""
    at: int
    """Until when answers count, in the data's time: ms since 1970 UTC."""
    assigned: Users
    """Users who were assigned to each arm."""
    answered: Users
    """Users whom the version of their arm has answered."""
    kpi: Gap
    guardrails: dict[str, Gap] = {}
    """Other rates that must not fall, by name."""
    slices: dict[str, Gap] = {}
    """The KPI of groups of users, by name. They decide nothing."""

    @property
    def has_enough_users(self) -> bool:
        """Whether the means of both arms are nearly normal."""
        return min(self.assigned.champion, self.assigned.challenger) >= MIN_USERS

    @property
    def information(self) -> float:
        """How much is known of the KPI's difference; 0 while that cannot be said."""
        if self.kpi.is_known and self.has_enough_users:
            return self.kpi.information
        return 0.0


class Verdict(BaseModel):
    """What came of a look."""

    model_config = ConfigDict(frozen=True)

    outcome: Outcome
    reason: str
    low: float | None = None
    """Least difference in the KPI, with `CONFIDENCE`."""
    high: float | None = None
    """Greatest difference in the KPI."""
    harm_bound: float | None = None
    """The difference in the KPI below which this look stops the experiment."""
    benefit_bound: float | None = None
    """The one from which on a planned look proves a benefit."""


def judge(plan: Design, looks: Sequence[Look], parts: Parts = A_B_TEST) -> Verdict:
    """What the newest of the `looks` says, in view of the planned ones before it.

    In this order: users that are missing in one arm, harm to the KPI or to a guardrail, benefit.
    Harm and missing users are judged at any look, however many there are; benefit at planned ones.
    """
    look = looks[-1]
    mismatch = lost_users(plan.share, look, parts)
    if mismatch:
        return Verdict(outcome="mismatch", reason=mismatch)
    if not look.has_enough_users:
        too_few = f"Each version needs {MIN_USERS} users before it is judged."
        return _wait(plan, look, too_few, parts)
    if not look.kpi.is_known:
        return _wait(plan, look, "Too few users have reacted for a judgement.", parts)
    progress = design.progress(look.information, plan)
    verdict = _judge_rates(plan, looks, parts)
    harm_bound = float(design.harm_bound(look.kpi.variance, progress))
    return verdict.model_copy(update={"harm_bound": harm_bound})


def _judge_rates(plan: Design, looks: Sequence[Look], parts: Parts) -> Verdict:
    """The verdict once the KPI is known."""
    look = looks[-1]
    progress = np.asarray(design.progress(look.information, plan))
    for name, gap in {"": look.kpi, **look.guardrails}.items():
        if gap.is_known and design.is_harmful(gap.estimate(), progress):
            return _harm(plan, look, name, parts)
    if not look.number:
        return _go_on(plan, look, "It does no proven harm.")
    return _benefit(plan, [each for each in looks if each.number and each.information], parts)


def _benefit(plan: Design, looks: Sequence[Look], parts: Parts) -> Verdict:
    """The verdict of the newest of the planned looks."""
    information: list[float] = []
    for look in looks:
        # Late clicks make a difference less certain now and then; what is known only grows.
        least = max([0.0, *information]) * GROWTH
        information.append(max(look.kpi.information, least))
    bounds = design.benefit_bounds(information, [look.number for look in looks], plan)
    newest = looks[-1]
    gap = newest.kpi
    z = gap.z
    bound = bounds[-1] * math.sqrt(gap.variance)
    is_final = design.is_final(information[-1], newest.number, plan)
    if z < bounds[-1] and not is_final:
        verdict = _go_on(plan, newest, "A benefit is not proven yet.")
        return verdict.model_copy(update={"benefit_bound": bound})
    low, high = spending.interval(information, bounds, z, (1 - CONFIDENCE) / 2)
    numbers = f"{_relative(gap, gap.difference)} ({_range(gap, low, high)})"
    outcome: Outcome = "benefit"
    reason = f"The {parts.judged} is better: {numbers}."
    if z < bounds[-1]:
        outcome = "undecided"
        stays = f"so the {parts.champion} stays"
        reason = f"No difference is proven at the horizon, {stays}: {numbers}."
    return Verdict(outcome=outcome, reason=reason, low=low, high=high, benefit_bound=bound)


def _harm(plan: Design, look: Look, guardrail: str, parts: Parts) -> Verdict:
    gap = look.guardrails.get(guardrail, look.kpi)
    numbers = f"{_relative(gap, gap.difference)} ({_range(gap, *sequence(gap, look, plan))})"
    which = f"harm in {guardrail}".removesuffix(" in ")
    reason = f"The {parts.judged} does {which}: {numbers}."
    low, high = sequence(look.kpi, look, plan)
    return Verdict(outcome="harm", reason=reason, low=low, high=high)


def lost_users(share: float, look: Look, parts: Parts = A_B_TEST) -> str:
    """Where users of one arm are lost, if that of what is judged has not its `share`; empty if it
    has."""
    stages = {
        f"were assigned to the {parts.judged}": (look.assigned, "between the gateway and the lake"),
        f"were answered by the {parts.judged}": (look.answered, "to the fallback, or before"),
    }
    for fate, (users, where) in stages.items():
        if sample_ratio.is_mismatch(users.all, users.challenger, share):
            return (
                f"{users.challenger / users.all:.2%} of {users.all:,} users {fate}, and "
                f"{share:.2%} were planned. Users of one arm are lost {where}, so the arms cannot "
                "be compared."
            )
    return ""


def _go_on(plan: Design, look: Look, why: str) -> Verdict:
    low, high = sequence(look.kpi, look, plan)
    return Verdict(outcome="running", reason=why, low=low, high=high)


def _wait(plan: Design, look: Look, why: str, parts: Parts) -> Verdict:
    """The verdict while nothing can be judged, which ends at some time."""
    if look.days <= PATIENCE * plan.days:
        return Verdict(outcome="running", reason=why)
    return Verdict(
        outcome="undecided",
        reason=f"{why} That has not come in {look.days:.0f} days, so the {parts.champion} stays.",
    )


def sequence(gap: Gap, look: Look, plan: Design) -> tuple[float, float]:
    """Interval of a difference that holds at all looks at once, with `CONFIDENCE`."""
    progress = design.progress(look.information, plan)
    errors = float(sequences.standard_errors(progress, (1 - CONFIDENCE) / 2))
    width = errors * math.sqrt(gap.variance)
    return gap.difference - width, gap.difference + width


def _relative(gap: Gap, difference: float) -> str:
    """A difference as a share of the champion's rate, which cannot fall by more than all of it."""
    return f"{max(difference / gap.champion_rate, -1.0):+.1%}"


def _range(gap: Gap, low: float, high: float) -> str:
    return f"{_relative(gap, low)} to {_relative(gap, high)} with {CONFIDENCE:.0%} confidence"
