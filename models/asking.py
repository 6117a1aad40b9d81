"""Ask many requests a batch at a time, requests of the same length together."""

from collections.abc import Callable

import numpy as np

from models import text
from models.spec import Tensors


def in_batches(ask: Callable[[Tensors], Tensors], inputs: Tensors, batch: int) -> Tensors:
    """Outputs of `ask` for all rows of `inputs`, in their order; it gets `batch` rows at a time.

    A graph may compute as many columns for each row of a batch as the longest of them needs, so
    rows of the same length are asked together. No rows are one batch, whose outputs have no rows.
    Raises ValueError for an output that has not as many rows as were asked, and as `text.unify`.
    """
    inputs = text.unify(inputs)
    order = np.argsort(lengths(inputs), kind="stable")
    outputs = []
    for first in range(0, max(1, len(order)), batch):
        rows = order[first : first + batch]
        output = ask({name: values[rows] for name, values in inputs.items()})
        for name, values in output.items():
            if len(values) != len(rows):
                raise ValueError(
                    f"Output {name!r} has {len(values)} rows for a batch of {len(rows)} requests; "
                    "it must have one for each."
                )
        outputs.append(output)
    back = np.argsort(order, kind="stable")
    return {name: np.concatenate([output[name] for output in outputs])[back] for name in outputs[0]}


def lengths(inputs: Tensors) -> np.ndarray:
    """Length of each row, summed over the inputs, int64 (n,).

    An input (n, m) is taken to be padded with the value that is most frequent in its last column;
    a row is as long as what stands before the padding at its end. NaN is a value like any other,
    and no padding. Of an input (n,) or (n, 1) only text has a length, and what has more dimensions
    has none. A wrong guess costs time only, because outputs keep the order of the inputs.
    """
    return np.sum([_lengths(values) for values in inputs.values()], axis=0)


def _lengths(values: np.ndarray) -> np.ndarray:
    """Length of each row of one input, int64 (n,)."""
    rows = len(values)
    if values.size == rows and text.is_text(values):
        return np.array([len(word) for word in values.ravel().tolist()], np.int64)
    if values.size <= rows or values.ndim > 2:
        return np.zeros(rows, np.int64)
    ends, counts = np.unique(values[:, -1], return_counts=True)
    is_filled = values != ends[counts.argmax()]
    up_to_last = values.shape[1] - is_filled[:, ::-1].argmax(1)
    return np.where(is_filled.any(1), up_to_last, 0)
