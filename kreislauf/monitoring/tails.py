"""The newest tails of the data: what was measured there, beside the same numbers of the hold-out.

A window is long, so that small changes can be seen in it. A fault is seen in its newest hours.
"""

import math

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

FRACTIONS = (64, 32, 16, 8, 4)
"""A tail is as long as a window divided by one of these; the shortest comes first."""
REFIT_FRACTIONS = (16, 8)
"""Tails in which a baseline may be refitted: shorter ones hold too little to learn, and of the
longest nothing says whether it is all of one kind."""


class TailHistory(BaseModel):
    """What a baseline learnt in stretches in which nothing was wrong, as long as a tail."""

    model_config = ConfigDict(frozen=True)

    amount: int = Field(description="Rows that it learnt from, at most.")
    refits: list[float] = Field(description="Quality of the baseline in each stretch.")


class Tail(BaseModel):
    """The newest rows back to a time, beside the same numbers of the version's hold-out."""

    model_config = ConfigDict(frozen=True)

    start: int = Field(description="Beginning, ms since 1970 UTC.")
    end: int = Field(description="End, ms since 1970 UTC, inclusive.")
    groups: int = Field(description="Groups that began in the tail and have a right answer.")
    live: float = Field(description="Metric of the version, at the hold-out's mix of requests.")
    reference: float = Field(description="Metric of the version on its hold-out.")
    error: float = Field(description="Standard error of `live` minus `reference`.")
    label_correlation: float = Field(
        math.nan,
        description="Correlation of how often each right answer occurs here and in the hold-out; "
        "like all that is said of right answers, without a value where they are no names.",
    )
    expected_correlation: float = Field(
        math.nan, description="The same for as many groups drawn from the hold-out."
    )
    correlation_error: float = Field(
        math.nan, description="Standard deviation of the same between draws: few groups say little."
    )
    rest_correlation: float = Field(
        math.nan, description="`label_correlation` of the right answers that are not new."
    )
    top_label: float = Field(0.0, description="Share of the most frequent right answer.")
    top_label_reference: float = Field(0.0, description="The same in the hold-out.")
    top_label_groups: int = Field(0, description="Groups with the most frequent right answer.")
    new_label_shares: tuple[float, float] = Field(
        (0.0, 0.0),
        description="Share of the right answers that the most frequent new one has, and that all "
        "new ones have.",
    )
    vanished: float = Field(
        0.0,
        description="Share of the frequent right answers of the hold-out that are not here at all.",
    )
    repeats: float = Field(
        description="Share of the rows that repeat the row before in all but the time."
    )
    repeats_reference: float = Field(description="The same in the hold-out.")
    long_rows: float = Field(
        description="Share of the rows in groups that have more rows than nearly all have."
    )
    long_groups: int = Field(description="Number of these groups.")
    long_chance: float = Field(
        description="Chance of a group to be one of them: their share in the hold-out, rounded up."
    )
    long_rows_reference: float = Field(description="The same in the hold-out.")
    refit: float | None = Field(
        None, description="Quality of a baseline that learnt from half of the tail, on the other."
    )
    history: list[float] = Field([], description="The same in stretches as long, before.")

    @property
    def loss(self) -> float:
        """Loss of the version, as a share of its reference."""
        return (self.reference - self.live) / max(self.reference, 1e-9)

    @property
    def deviation(self) -> float:
        """Distance of the live quality from its reference, in standard errors."""
        return (self.live - self.reference) / max(self.error, 1e-9)

    @property
    def usual_refit(self) -> tuple[float, float]:
        """Mean of `history`, and the standard deviation of a new value from it."""
        spread = float(np.std(self.history, ddof=1)) * math.sqrt(1 + 1 / len(self.history))
        return float(np.mean(self.history)), spread
