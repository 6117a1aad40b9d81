"""Ranges of hyperparameters that a search varies."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Search:
    """Range of a hyperparameter, from `low` to `high` inclusive.

    `lr: Annotated[float, Search(1e-4, 1e-2, log=True)]` lets a search vary a number of `Params`.
    """

    low: float
    high: float
    log: bool = False
    """Whether equal ratios are equally likely, rather than equal differences."""
