"""How far may a signal be from its mean before it means something? Learnt from earlier windows.

Fixed thresholds, such as Evidently's, know neither how many rows a window has nor how much a shop
varies by itself.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from scipy.stats import t

FALSE_ALARM_RATE = 0.001
"""Share of windows without any change in which some signal may be beyond its tolerance.

`cadence.WINDOWS_PER_LENGTH` windows are judged in a window's length. They overlap, so all of them
together alarm in less than 1 % of the weeks.
"""
DIRECTIONS = {
    "refit_baseline": -1,
    "refit_baseline_tail": -1,
    "label_correlation": -1,
    "coverage": -1,
    "clicks": -1,
    "top_label": 1,
    "top_answer": 1,
    "silence": 1,
    "rejected": 1,
}
"""Signals of which only one direction is an alarm: nobody is worried by more clicks."""
MIN_WINDOWS = 5
"""Fewest windows from which a tolerance can be learnt."""
MIN_RELATIVE_MOVE = 0.01
"""Narrowest tolerance, as a share of the mean: so small a move interests nobody."""
MIN_TOLERANCE = 1e-9
"""Narrowest tolerance: a share that was 0 throughout has moved once it is not."""


class Measured(BaseModel):
    """A number about a window, and the same number of windows before it in which nothing was
    wrong."""

    model_config = ConfigDict(frozen=True)

    value: float
    history: list[float] = []


class Signal(BaseModel):
    """A measured number beside its mean over earlier windows and its tolerance."""

    model_config = ConfigDict(frozen=True)

    name: str
    value: float
    mean: float = Field(description="Mean over the windows before.")
    tolerance: float = Field(
        description="Distance from the mean that a window without any change may have."
    )
    windows: int = Field(description="Windows from which the tolerance was learnt.")
    direction: int = Field(
        0, description="-1: only a fall is an alarm; 1: only a rise; 0: both are."
    )

    @property
    def deviation(self) -> float:
        """Distance from the mean, in tolerances: beyond -1 or 1 it is an alarm, if that is its
        direction."""
        return (self.value - self.mean) / self.tolerance

    @property
    def alarm(self) -> bool:
        """Whether the value is beyond the tolerance, in its direction."""
        if self.direction:
            return self.direction * self.deviation > 1
        return abs(self.deviation) > 1

    def __str__(self) -> str:
        limits = f"usually {self.mean:.4g} ± {self.tolerance:.2g}"
        return f"{self.name} is {self.value:.4g} and {limits}"


def prediction_factor(windows: int, signals: int) -> float:
    """Standard deviations that a new window may be from the mean of so many windows.

    The two-sided prediction interval of a normal variable (Hahn and Meeker, "Statistical
    Intervals", 1991, 4.7) at `FALSE_ALARM_RATE` over all `signals` (Bonferroni).
    """
    quantile = float(t.ppf(1 - FALSE_ALARM_RATE / 2 / signals, windows - 1))
    return quantile * np.sqrt(1 + 1 / windows)


def compare(measured: Mapping[str, Measured]) -> dict[str, Signal]:
    """Each measured number beside its own history.

    Left out are numbers that are not defined, and those with a history of fewer than `MIN_WINDOWS`
    defined numbers.
    """
    histories = {}
    for name, number in measured.items():
        history = _defined(number.history)
        if np.isfinite(number.value) and len(history) >= MIN_WINDOWS:
            histories[name] = history
    return {
        name: _signal(name, measured[name].value, history, len(histories))
        for name, history in histories.items()
    }


def _defined(history: Sequence[float]) -> np.ndarray:
    numbers = np.asarray(history, dtype=float)
    return numbers[np.isfinite(numbers)]


def _signal(name: str, value: float, history: np.ndarray, signals: int) -> Signal:
    mean = float(history.mean())
    spread = prediction_factor(len(history), signals) * float(history.std(ddof=1))
    tolerance = max(spread, MIN_RELATIVE_MOVE * abs(mean), MIN_TOLERANCE)
    return Signal(
        name=name,
        value=value,
        mean=mean,
        tolerance=tolerance,
        windows=len(history),
        direction=DIRECTIONS.get(name, 0),
    )
