"""What the newest window says about the champion"""

from pydantic import BaseModel, ConfigDict, Field

from kreislauf.evaluation.intervals import Interval
from kreislauf.monitoring.diagnosis import Verdict
from kreislauf.monitoring.limits import Signal

WINDOWS = "windows"
SLICES = "slices"
"""The lake's tables with each signal of each window, and with the live quality in each slice of
each window."""


class Finding(BaseModel):
    """What the newest window says about the champion."""

    model_config = ConfigDict(frozen=True)

    model: str
    version: int
    start: int = Field(description="Of the window, ms since 1970 UTC.")
    end: int = Field(description="The same; inclusive.")
    groups: int = Field(description="In the window.")
    verdict: Verdict
    reason: str = Field(description="The evidence, in sentences.")
    faulty: tuple[int, int] | None = Field(
        None, description="What is not to be learnt from: from when to when."
    )
    signals: list[Signal] = []
    realised: Interval | None = Field(None, description="Metric of the live version in the window.")
    reference: Interval | None = Field(None, description="Its metric on its own hold-out.")
    gain: Interval | None = Field(None, description="Of a trivial baseline, by learning anew.")
    loss: float = Field(0.0, description="Of the metric, beside what a new version would reach.")
    action: str = Field("", description="What followed, in a sentence.")
