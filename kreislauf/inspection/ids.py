"""Whether a model type can take a source's ids as they are."""

from dataclasses import replace

import polars as pl

from kreislauf.inspection.roles import Role
from kreislauf.inspection.traits import Traits
from models.table import Table

LEADING_ZERO = r"^\s*[+]?0\d"


def doubted(role: Role, columns: list[Traits], table: Table) -> Role:
    """A role with sentences about ids that the table cannot hold."""
    if table.dtypes[role.column] != pl.Int64 or role.column == table.time:
        return role
    candidates = [t for t in columns if t.name in role.sources]
    doubts = [_doubt(t) for t in candidates if not t.is_empty and not t.kept_as_number]
    return replace(role, doubts=[*role.doubts, *doubts])


def _doubt(traits: Traits) -> str:
    values = traits.texts.drop_nulls()
    zeros = values.filter(values.str.contains(LEADING_ZERO))
    if traits.shape == "whole numbers" and len(zeros):
        return (
            f"{traits.name} has numbers that begin with 0, such as {zeros[0]}: the 0 is lost, and "
            "two ids that differ by it become one."
        )
    return (
        f"{traits.name} has values that are no whole numbers from 0 to 2^63-1, such as "
        f"{_misfit(values)}: their rows are rejected."
    )


def _misfit(values: pl.Series) -> str:
    """A value that is no whole number from 0 to 2^63-1."""
    fits = values.str.strip_chars().cast(pl.Int64, strict=False) >= 0
    misfits = values.filter(~fits.fill_null(False))
    return str(misfits.head(1).to_list()[0]) if len(misfits) else str(values[0])
