"""Has what is left out as a fault become the rule? A new assortment looks like remapped ids on its
first day. Days later it is still the same, and only people know which of the two it is."""

import itertools

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from kreislauf.clock import DAY_MS, when
from kreislauf.evaluation import split
from kreislauf.lake.exclusions import Stretch, touching
from kreislauf.monitoring.statistics import MIN_GROUPS, frequency_correlation
from kreislauf.monitoring.tail_probe import TailProbe

DAYS = 3
"""Days in a row that must agree, each with the day before it."""
AGREEING_CORRELATION = 0.5
"""Share of the expected label correlation above which two days agree."""


class Agreement(BaseModel):
    """How the days since a fault began compare with each other."""

    model_config = ConfigDict(frozen=True)

    since: int = Field(description="First moment that was left out, ms since 1970 UTC.")
    correlations: list[float] = Field(
        description="Correlation of the right answers of each day with those of the day before, as "
        "a share of the expected one."
    )

    @property
    def reached(self) -> bool:
        """Whether enough days agree."""
        return len(self.correlations) >= DAYS - 1 and min(self.correlations) > AGREEING_CORRELATION

    @property
    def question(self) -> str:
        """What a person is asked, with both readings and what each would do."""
        return (
            f"Since {when(self.since)} all days agree with each other, and none with the time "
            "before. Is it a new assortment? Then say so in the deployment `trust`, without an "
            "end: models learn from it, and a training begins. Or does the tracker send wrong ids? "
            "Then say in `trust` that you do not trust the rows until now: they stay left out, as "
            "will what follows until the tracker is mended. Until somebody has said so, nothing "
            "more is left out, and trainings wait."
        )


def first_excluded(excluded: list[Stretch], fault: Stretch) -> int:
    """Where what was left out directly before or in a `fault` began (ms); the fault's own
    beginning if nothing was."""
    return min([fault[0], *(start for start, _ in touching(excluded, fault))])


def agreement(probe: TailProbe, rows: pl.DataFrame, since: int, end: int) -> Agreement:
    """Compare the days from `since` until `end` (ms, inclusive), of which `rows` are all that came,
    faulty or not; the last `DAYS` of them."""
    model_type = probe.probe.model_type
    days = min(DAYS, (end + 1 - since) // DAY_MS)
    by_day = []
    for number in range(days):
        last = end - number * DAY_MS
        day = split.started(rows, model_type.table, last - DAY_MS + 1, last)
        examples = model_type.examples(day)
        groups = len(np.unique(examples.groups))
        if groups < MIN_GROUPS:
            break
        by_day.append((examples.labels, groups))
    correlations = []
    for (labels, groups), (before, groups_before) in itertools.pairwise(by_day):
        expected, _ = probe.expected_correlation(min(groups, groups_before))
        measured = frequency_correlation(labels, before, probe.probe.profile.height)
        correlations.append(measured / max(expected, 1e-9))
    return Agreement(since=since, correlations=correlations)
