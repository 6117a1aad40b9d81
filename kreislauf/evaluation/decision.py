"""What the gate says of a challenger, and why."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from kreislauf.evaluation.intervals import Interval
from kreislauf.evaluation.scores import Cost

DECISIONS = "decisions"
"""Name of the lake's table with a row for each decision."""
Outcome = Literal["promote", "refuse", "inconclusive"]


class Slice(BaseModel):
    """A slice of the hold-out."""

    model_config = ConfigDict(frozen=True)

    by: str
    value: str
    groups: int
    gain: Interval = Field(description="Challenger minus champion.")

    def __str__(self) -> str:
        return f"{self.by} {self.value} ({self.groups} groups): {self.gain}"


class Decision(BaseModel):
    """What the gate says, and why. Serves as the tag on the version and as the artifact in the
    UI."""

    model_config = ConfigDict(frozen=True)

    outcome: Outcome
    reasons: list[str] = Field(description="Plain sentences.")
    metric: str
    challenger: float | None = Field(None, description="Score on the hold-out.")
    champion: float | None = None
    baseline: float | None = None
    gain: Interval | None = Field(None, description="Challenger minus champion.")
    over_baseline: Interval | None = Field(None, description="Challenger minus trivial baseline.")
    reference: Interval | None = Field(
        None,
        description="What the challenger will score, without a winner's luck and with the variance "
        "between days: what decay is measured against.",
    )
    slices: list[Slice] = Field(
        [], description="Against the champion; the intervals hold for all of them at once."
    )
    costs: dict[str, Cost] = Field(
        {}, description="What serving takes: of challenger, champion, and baseline."
    )
    groups: int = 0
    clicked: float = Field(
        0.0, description="Share of the right answers that were taken from an answer shown."
    )
    needed: int | None = Field(
        None, description="Groups that would decide a gain like this, if it is inconclusive."
    )
    holdout: str = Field("", description="Digest of the hold-out.")
    champion_version: int | None = None
