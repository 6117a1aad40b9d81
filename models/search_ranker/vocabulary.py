"""Categories as numbers: which ones a training knows, and the nodes that look them up.

numpy and Polars only, but for the nodes.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from models import text
from models.search_ranker.features import NO_CATEGORY, Lists

if TYPE_CHECKING:
    import onnx

UNSEEN, MISSING = range(2)
"""Numbers of what training did not know, and of what is missing. The known categories follow."""
MOST = 1_000
"""Most categories of a column that are known, the most frequent ones."""
FEWEST = 5
"""Fewest results with a category that is known: fewer teach only what is unseen."""


@dataclass(frozen=True)
class Vocabulary:
    """The known categories."""

    columns: tuple[tuple[str, ...], ...] = ()
    """Those of each column, the most frequent ones first."""

    @classmethod
    def of(cls, lists: Lists) -> "Vocabulary":
        """What the results of these lists know; columns without anything at the end are left
        out."""
        values = lists.categories[lists.present]
        columns = [frequent(values[:, column]) for column in range(values.shape[1])]
        while columns and not columns[-1]:
            columns.pop()
        return cls(tuple(columns))

    @property
    def sizes(self) -> list[int]:
        """How many numbers each column has."""
        return [MISSING + 1 + len(values) for values in self.columns]

    def numbers(self, categories: np.ndarray) -> np.ndarray:
        """Numbers of text (..., categories), in each column from 0: int64 (..., columns).

        Further columns are left out; those that the text lacks are missing.
        """
        numbers = np.full((*categories.shape[:-1], len(self.columns)), MISSING, np.int64)
        for column, values in enumerate(self.columns[: categories.shape[-1]]):
            words = np.array([NO_CATEGORY, *values], object)
            places = text.positions(categories[..., column], words, UNSEEN - MISSING)
            numbers[..., column] = places + MISSING
        return numbers

    def nodes(self, source: str, target: str) -> "tuple[list[onnx.NodeProto], list]":
        """Nodes and initializers of `numbers`, from text `source` to `target`."""
        from onnx import helper, numpy_helper

        words = [f"{i} {word}" for i, values in enumerate(self.columns) for word in ("", *values)]
        places = [MISSING + i for values in self.columns for i in range(len(values) + 1)]
        constants = {
            "prefix": np.array([f"{i} " for i in range(len(self.columns))], object),
            "first_column": np.array([0]),
            "last_column": np.array([len(self.columns)]),
            "column_axis": np.array([2]),
        }
        encode = helper.make_node(
            "LabelEncoder",
            ["prefixed"],
            [target],
            domain="ai.onnx.ml",
            keys_tensor=numpy_helper.from_array(np.array(words, object), "keys"),
            values_tensor=numpy_helper.from_array(np.array(places), "values"),
            default_tensor=numpy_helper.from_array(np.array([UNSEEN]), "default"),
        )
        cut = [source, "first_column", "last_column", "column_axis"]
        nodes = [
            helper.make_node("Slice", cut, ["known_columns"]),
            helper.make_node("StringConcat", ["prefix", "known_columns"], ["prefixed"]),
            encode,
        ]
        return nodes, [numpy_helper.from_array(value, name) for name, value in constants.items()]


def frequent(values: np.ndarray) -> tuple[str, ...]:
    """The categories of a column of text (n,) that are known."""
    counts = pl.Series("value", values.tolist(), pl.String).value_counts()
    enough = counts.filter(pl.col("value") != NO_CATEGORY, pl.col("count") >= FEWEST)
    most = enough.sort(["count", "value"], descending=[True, False]).head(MOST)
    return tuple(most["value"].to_list())
