"""Clicks on the live release beside those on the version before it, judged at every look.

A release is worse if three things hold:

- Its clicks per answer are surely below those of the version before, by more than `MIN_FALL`. The
  version before is measured once, in its last days, by a confidence interval. The release is looked
  at again and again, so its bound is that of a confidence sequence. Both are over whole users,
  whose clicks depend on each other.
- It was clicked that much less from its first answers on. What falls later has fallen because the
  shop has changed.
- Feedback still comes.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict

from kreislauf import exposures, lake
from kreislauf.clock import DAY_MS, HOUR_MS, when
from kreislauf.evaluation import sequences
from kreislauf.monitoring.feedback import join_feedback
from kreislauf.monitoring.remarks import MISSING

DAYS = 7
"""Days after a release in which it is watched, and days of the version before that it is compared
with: whole weeks have the same weekdays."""
MIN_ANSWERS = 1_000
"""Fewest answers of either version that are compared."""
MIN_USERS = 100
"""Fewest users of either version that are compared."""
MIN_FALL = 0.1
"""Share of the clicks that has surely been lost when a release is called worse. Days differ by a
few percent without any release."""
FALSE_ALARM_RATE = 0.01
"""Share of the releases that may be called worse by chance, over all looks together."""
TIGHTEST = 2_000
"""Number of users at which the bound of a release is tightest."""
FIRST_CLICKS = 200
"""Clicks that are expected on the first answers of a release, which have to be worse, too."""


@dataclass(frozen=True)
class Rate:
    """Clicks per answer, and how sure that is."""

    mean: float
    users: int
    deviation: float
    """Standard deviation of one user's share in the mean."""


@dataclass(frozen=True)
class Answers:
    """Answers of a version, in the order of time."""

    times: np.ndarray
    """ms since 1970 UTC: int64 (n,)."""
    users: np.ndarray
    """Number of each one's user, from 0: int64 (n,)."""
    clicked: np.ndarray
    """Whether it was clicked: bool (n,)."""

    @classmethod
    def of(cls, rows: pl.DataFrame) -> "Answers":
        """Rows from `join_feedback`."""
        ordered = rows.sort("ts")
        _, users = np.unique(ordered["user"].to_numpy(), return_inverse=True)
        return cls(ordered["ts"].to_numpy(), users, ordered["click"].to_numpy())

    def __len__(self) -> int:
        """Number of answers."""
        return len(self.times)

    @property
    def user_count(self) -> int:
        """Number of users."""
        return len(np.unique(self.users))

    def between(self, first: int, last: int) -> "Answers":
        """The answers from the time `first` until before `last` (ms)."""
        return self.slice(*np.searchsorted(self.times, [first, last]))

    def slice(self, first: int, last: int) -> "Answers":
        """The answers from number `first` until before number `last`."""
        rows = slice(first, last)
        return Answers(self.times[rows], self.users[rows], self.clicked[rows])

    def rate(self, weights: np.ndarray | None = None) -> Rate:
        """Clicks per answer, of one answer at least; each counts as much as its weight, (n,)."""
        if weights is None:
            weights = np.ones(len(self))
        answers = np.bincount(self.users, weights)
        clicks = np.bincount(self.users, weights * self.clicked)
        mean = float(clicks.sum() / answers.sum())
        users = int((answers > 0).sum())
        residuals = clicks - mean * answers
        deviation = float(np.sqrt((residuals**2).sum() * users) / answers.sum())
        return Rate(mean, users, deviation)

    def rate_at_hours_of(self, live: "Answers") -> Rate:
        """Clicks per answer at the hours of the day, UTC, at which the `live` ones were given.

        Answers of less than a day, or of other hours only, are taken as they are.
        """
        if self.times[-1] - self.times[0] < DAY_MS:
            return self.rate()
        hours = self.times // HOUR_MS % 24
        shares = np.bincount(live.times // HOUR_MS % 24, minlength=24) / len(live)
        weights = (shares / np.bincount(hours, minlength=24).clip(min=1))[hours]
        if not weights.any():
            return self.rate()
        return self.rate(weights)


class Comparison(BaseModel):
    """What the clicks say of a release."""

    model_config = ConfigDict(frozen=True)

    model: str
    version: int
    """The live version."""
    previous: int
    """The version that was live before."""
    worse: bool
    """Whether the release clearly earns fewer clicks."""
    rolled_back: bool = False
    reason: str
    """Why, in sentences for people."""


def compare(model: str, version: int, previous: int, maturity: int) -> Comparison:
    """The clicks on the live `version` since it went live, beside those on `previous` before.

    Answers younger than `maturity` (ms) do not count, because people may still click. Only answers
    of champions do, so the challenger of an A/B test changes nothing. Raises LakeError.
    """
    worse = False
    reason = "The lake has no answers of the gateway, or no feedback."
    newest = lake.watermark(exposures.EXPOSURES)
    if newest is not None and lake.watermark(exposures.FEEDBACK) is not None:
        last = newest - maturity
        live = champion_answers(model, version, last)
        before = champion_answers(model, previous, last)
        worse, reason = judge((version, live), (previous, before), last)
    return Comparison(model=model, version=version, previous=previous, worse=worse, reason=reason)


def champion_answers(model: str, version: int, last: int) -> Answers:
    """The answers of the days until `last` (ms) that a version gave as champion."""
    first = last - 2 * DAYS * DAY_MS
    of_version = (pl.col("model") == model) & (pl.col("version") == version)
    with lake.reading(exposures.EXPOSURES):
        shown = lake.scan(exposures.EXPOSURES, start=first, end=last + 1)
        taken = lake.scan(exposures.FEEDBACK, start=first)
        of_champion = shown.filter(of_version, pl.col("variant") == "champion")
        return Answers.of(join_feedback(of_champion, taken.filter(of_version)))


def judge(live: tuple[int, Answers], before: tuple[int, Answers], last: int) -> tuple[bool, str]:
    """Whether the live version is clearly worse than the one before, and why; each with its answers
    until `last` (ms)."""
    version, answers = live
    previous, all_before = before
    if not len(answers):
        return False, f"Version {version} has no answers yet that are old enough."
    start = int(answers.times[0])
    if last - start > DAYS * DAY_MS:
        return False, f"Version {version} has been live for more than {DAYS} days."
    earlier = all_before.between(start - DAYS * DAY_MS, start)
    for number, given in ((previous, earlier), (version, answers)):
        if len(given) < MIN_ANSWERS or given.user_count < MIN_USERS:
            return False, (
                f"Version {number} has {len(given)} answers to {given.user_count} users to "
                f"compare, and at least {MIN_ANSWERS} to {MIN_USERS} are needed."
            )
    reference = earlier.rate_at_hours_of(answers).mean
    silence = feedback_silence(answers, reference)
    if silence:
        return False, silence
    numbers = (
        f"{answers.rate().mean:.4f} of version {version} ({len(answers)} answers), "
        f"{reference:.4f} of version {previous} before ({len(earlier)} answers)"
    )
    if not has_fallen(answers, earlier):
        return False, f"Clicks per answer have not clearly fallen with the release: {numbers}."
    if not fell_at_once(answers, earlier):
        return False, (
            f"Clicks per answer have fallen, but not from the first answers on: {numbers}. So the "
            "shop has changed, and not the release."
        )
    return True, f"Clicks per answer have clearly fallen with the release: {numbers}."


def feedback_silence(answers: Answers, reference: float) -> str:
    """That nobody has clicked for so long that feedback must have stopped; empty if not. As many
    clicks per answer as the `reference` were usual.

    No release makes everybody stop, so the clicks say nothing of a release then. A release that is
    clicked less has longer breaks between two clicks, so its own rate until its last click counts
    if that is lower.
    """
    clicks = np.flatnonzero(answers.clicked)
    first = 0
    expected_rate = reference
    if len(clicks):
        first = int(clicks[-1]) + 1
        expected_rate = min(reference, len(clicks) / first)
    count = len(answers) - first
    expected_clicks = count * expected_rate
    if expected_clicks < MISSING:
        return ""
    return (
        f"Feedback has stopped: there was none on the {count} answers since "
        f"{when(int(answers.times[first]))}, of which about {expected_clicks:.0f} should have "
        "been clicked. So the clicks say nothing of the release. Does the shop still send "
        "feedback, and with the request ids of the answers?"
    )


def is_worse(live: Answers, before: Answers) -> bool:
    """Whether the clicks on `live` have surely fallen below those on `before`, and did at once."""
    return has_fallen(live, before) and fell_at_once(live, before)


def has_fallen(live: Answers, before: Answers) -> bool:
    """Whether the clicks on `live` are surely below those on `before` by more than `MIN_FALL`.

    Either bound has half of the false alarms. A rate of 0 has no deviation of its own, so that of
    the version before stands in for a smaller one.
    """
    error_rate = FALSE_ALARM_RATE / 2
    rate = live.rate()
    reference = before.rate_at_hours_of(live)
    quantile = NormalDist().inv_cdf(1 - error_rate)
    low = reference.mean - quantile * reference.deviation / math.sqrt(reference.users)
    deviation = max(rate.deviation, reference.deviation)
    high = rate.mean + deviation * sequences.margin(rate.users, error_rate, TIGHTEST)
    return high < (1 - MIN_FALL) * low


def fell_at_once(live: Answers, before: Answers) -> bool:
    """Whether the first answers of `live` were clicked less than `before` by more than `MIN_FALL`,
    sure or not."""
    reference = before.rate_at_hours_of(live).mean
    beginning = live.slice(0, max(MIN_ANSWERS, math.ceil(FIRST_CLICKS / reference)))
    expected = before.rate_at_hours_of(beginning).mean
    return beginning.rate().mean < (1 - MIN_FALL) * expected
