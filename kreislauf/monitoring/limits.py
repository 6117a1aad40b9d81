"""How far may a signal be from what is usual before it means something? Learnt from the windows
that came before.

Fixed thresholds, such as Evidently's, know neither how many rows a window has nor how much a shop
varies by itself.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from scipy.stats import t

FALSE_ALARMS = 0.005
"""Share of windows without any change in which one signal or more may be beyond its limit."""
LEAST = 5
"""Windows from which a limit can be learnt."""
LEAST_MOVE = 0.01
"""No limit is narrower than this share of what is usual: so small a move interests nobody."""
TINY = 1e-9
"""Nor than this: a share that was 0 throughout has moved once it is not."""


class Signal(BaseModel):
    """A number about a window, beside the same number of windows before it in which nothing was
    wrong."""

    model_config = ConfigDict(frozen=True)

    name: str
    value: float
    usual: float = Field(description="Mean over the windows before.")
    limit: float = Field(
        description="How far a window in which nothing has changed may be from it."
    )
    windows: int = Field(description="That the limit was learnt from.")

    @property
    def off(self) -> float:
        """How far from usual, in limits: beyond -1 or 1 it is an alarm."""
        return (self.value - self.usual) / self.limit

    @property
    def alarm(self) -> bool:
        return abs(self.off) > 1

    def __str__(self) -> str:
        return f"{self.name} is {self.value:.4g} and usually {self.usual:.4g} ± {self.limit:.2g}"


def shares(kinds: np.ndarray) -> dict[str, float]:
    """Share of each of `kinds`, strings (n,)."""
    names, counts = np.unique(kinds, return_counts=True)
    return {str(name): float(count / len(kinds)) for name, count in zip(names, counts, strict=True)}


def at_mix(scores: np.ndarray, kinds: np.ndarray, shares: Mapping[str, float]) -> float:
    """Mean of `scores` (n,) as it would be if `kinds` (n,) had the given shares: direct
    standardisation (Fleiss, Levin and Paik, "Statistical Methods for Rates and Proportions", 2003,
    ch. 19). Kinds that are missing do not count; NaN if all are."""
    means = {kind: float(scores[kinds == kind].mean()) for kind in shares if (kinds == kind).any()}
    weight = sum(shares[kind] for kind in means)
    return (
        sum(shares[kind] * mean for kind, mean in means.items()) / weight
        if weight
        else float("nan")
    )


def factor(windows: int, signals: int) -> float:
    """Standard deviations that a new window may be from the mean of so many: the two-sided
    prediction interval of a normal variable (Hahn and Meeker, "Statistical Intervals", 1991, 4.7)
    at `FALSE_ALARMS` over all `signals` (Bonferroni)."""
    return float(t.ppf(1 - FALSE_ALARMS / 2 / signals, windows - 1)) * np.sqrt(1 + 1 / windows)


def signals(
    values: Mapping[str, float], before: Mapping[str, Sequence[float]]
) -> dict[str, Signal]:
    """Each of `values` beside what it was in the windows `before`; those with fewer than `LEAST`
    are left out, and those that are not defined."""
    past = {
        name: np.asarray(before.get(name, ()))
        for name, value in values.items()
        if np.isfinite(value)
    }
    found = {name: known[np.isfinite(known)] for name, known in past.items()}
    found = {name: past for name, past in found.items() if len(past) >= LEAST}
    return {
        name: Signal(
            name=name,
            value=values[name],
            usual=float(past.mean()),
            limit=max(
                factor(len(past), len(found)) * float(past.std(ddof=1)),
                LEAST_MOVE * abs(past.mean()),
                TINY,
            ),
            windows=len(past),
        )
        for name, past in found.items()
    }
