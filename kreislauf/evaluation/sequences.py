"""Confidence sequences: bounds of a mean that hold at all looks at once, however often one looks.

An interval of fixed size that is looked at again and again misses the mean sooner or later. The
sequence here is the asymptotic one of Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas,
"Time-uniform central limit theory and asymptotic confidence sequences", 2021, with their normal
mixture.
"""

import math
from typing import TypeVar

import numpy as np

Number = TypeVar("Number", float, np.ndarray)


def margin(count: int, error_rate: float, tightest: int) -> float:
    """How far the mean of `count` independent values is above the true one at most, in their
    standard deviations, at all looks together with a probability of 1 - `error_rate`; so far below
    it as well, in its own right.

    It is the one-sided bound. `tightest` is the count at which it is narrowest beside that of
    other counts; it is chosen before the first look.
    """
    return float(standard_errors(count / tightest, error_rate)) / math.sqrt(count)


def standard_errors(progress: Number, error_rate: float) -> Number:
    """The same for any estimate whose information grows, in its standard errors; `progress` is the
    information as a multiple of that at which the bound is tightest."""
    spread = -2 * math.log(2 * error_rate)
    mixed = (spread + math.log(spread + 1)) * progress
    information = mixed + 1
    bound = 2 * information * np.log(1 + np.sqrt(information) / (2 * error_rate))
    return np.sqrt(bound / mixed)
