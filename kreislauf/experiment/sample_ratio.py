"""Whether each arm has the share of the users that it was given.

If not, some users were lost on the way, and those that are left cannot be compared. The test may be
looked at after each user (Lindon and Malek, "Anytime-valid inference for multinomial count data",
2022): the likelihood of shares near the planned ones, averaged, beside that of the planned ones.
"""

import math
from typing import Any, TypeVar

import numpy as np
from scipy.special import betaln

Counts = TypeVar("Counts", int, np.ndarray)

ERROR_RATE = 0.001
"""Probability that a sound experiment is ever stopped."""
CONCENTRATIONS = (100, 10_000)
"""How near the planned shares a mismatch is expected, each as likely: the share of one of two equal
arms has a standard deviation of five percentage points, or of half of one."""


def evidence(users: Counts, challenger_users: Counts, share: float) -> Any:
    """How many times likelier these numbers of users are with a mismatch than with the planned
    `share` of the challenger, as a natural logarithm; all of one shape."""
    champion_users = users - challenger_users
    planned = challenger_users * math.log(share) + champion_users * math.log1p(-share)
    mixtures = []
    for concentration in CONCENTRATIONS:
        prior = (concentration * share, concentration * (1 - share))
        posterior = (prior[0] + challenger_users, prior[1] + champion_users)
        mixtures.append(betaln(*posterior) - betaln(*prior) - math.log(len(CONCENTRATIONS)))
    return np.logaddexp(*mixtures) - planned


def is_mismatch(users: Counts, challenger_users: Counts, share: float) -> Any:
    """Whether the shares are surely not those of the plan."""
    return evidence(users, challenger_users, share) >= -math.log(ERROR_RATE)
