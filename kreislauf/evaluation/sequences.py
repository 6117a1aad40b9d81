"""Confidence sequences: bounds of a mean that hold at all looks at once, however often one looks.

An interval of fixed size that is looked at again and again misses the mean sooner or later. The
sequence here is the asymptotic one of Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas,
"Time-uniform central limit theory and asymptotic confidence sequences", 2021, with their normal
mixture.
"""

import math


def margin(count: int, error_rate: float, tightest: int) -> float:
    """How far the mean of `count` independent values is above the true one at most, in their
    standard deviations, at all looks together with a probability of 1 - `error_rate`; so far below
    it as well, in its own right.

    It is the one-sided bound. `tightest` is the count at which it is narrowest beside that of
    other counts; it is chosen before the first look.
    """
    spread = -2 * math.log(2 * error_rate)
    mixture = (spread + math.log(spread + 1)) / tightest
    information = count * mixture + 1
    bound = 2 * information * math.log(1 + math.sqrt(information) / (2 * error_rate))
    return math.sqrt(bound / mixture) / count
