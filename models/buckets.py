"""Numbers in buckets, as slices have them."""

from collections.abc import Mapping

import numpy as np
import polars as pl


def bucket(values: pl.Series, buckets: Mapping[str, float]) -> pl.Series:
    """The last bucket whose smallest value is not above each value, or the first: Enum."""
    index = np.searchsorted(list(buckets.values()), values.to_numpy(), side="right") - 1
    names = pl.Series(list(buckets), dtype=pl.Enum(list(buckets)))
    return names.gather(np.maximum(index, 0))
