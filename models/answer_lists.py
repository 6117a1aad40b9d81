"""Lists of different lengths out of padded arrays, as answers have them."""

from itertools import pairwise

import numpy as np


def real_values(values: np.ndarray, is_real: np.ndarray) -> list[list]:
    """The values of each row that are no padding, in order: both arrays have the shape (n, k)."""
    flat = values[is_real].tolist()
    ends = is_real.sum(1).cumsum().tolist()
    return [flat[start:end] for start, end in pairwise([0, *ends])]
