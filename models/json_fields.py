"""Fields of a JSON object by the columns of a mapping.

`a.b` is b in a nested object a, or a field so called.
"""

import json
from typing import Any

import msgspec
import polars as pl

from models.mapping import Mapping

Tree = dict[str, Any]
"""Fields that an object may have: True for one that is read, False for one that is ignored, and a
tree for an object."""


def tree_of(mapping: Mapping) -> Tree:
    """The fields that a line, or an event of a request, may have."""
    tree: Tree = {}
    for names, is_read in ((mapping.ignored, False), (mapping.sources, True)):
        for name in names:
            *objects, field = name.split(".")
            branch = tree
            for member in objects:
                if not isinstance(branch.get(member), dict):
                    branch[member] = {}
                branch = branch[member]
            branch[field] = is_read
            tree[name] = is_read
    return tree


def collect(record: dict[str, Any], tree: Tree, row: dict[str, Any], prefix: str = "") -> int:
    """Add the fields of an object that are read to `row`, by their columns; returns how many it
    has. Raises msgspec.ValidationError for one that the tree does not have."""
    fields = len(record)
    for name, value in record.items():
        node = tree.get(name)
        path = prefix + name
        if node is None:
            raise msgspec.ValidationError(
                f"Object contains unknown field `{path}`: use it in the mapping, or name it under "
                "`ignored`"
            )
        if node is True and isinstance(value, dict | list):
            raise msgspec.ValidationError(f"Expected `{path}` to be a single value")
        if node is True:
            row[path] = value
        elif isinstance(node, dict) and isinstance(value, dict):
            fields += collect(value, node, row, f"{path}.")
        elif isinstance(node, dict) and value is not None:
            raise msgspec.ValidationError(f"Expected `{path}` to be an object")
    return fields


def column_of(name: str, values: list[Any]) -> pl.Series:
    """Values of JSON as a column; as text, if they are of several types."""
    try:
        column = pl.Series(name, values, strict=True)
    except (TypeError, OverflowError, pl.exceptions.PolarsError):
        texts = [v if v is None or isinstance(v, str) else json.dumps(v) for v in values]
        return pl.Series(name, texts, pl.String)
    if column.dtype == pl.Null:
        return column.cast(pl.String)
    return column
