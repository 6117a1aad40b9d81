"""Cut rows by time: what a challenger learns from, and the later hold-out that judges it."""

import math
from statistics import NormalDist

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from kreislauf.clock import DAY_MS, when
from models.spec import ModelSpec, Policy
from models.table import Table


class Cut(BaseModel):
    """A point in the data's own time; all in milliseconds since 1970 UTC."""

    model_config = ConfigDict(frozen=True)

    table_version: int = Field(description="Delta version that was read.")
    start: int = Field(description="Oldest event.")
    holdout: int = Field(description="Training ends before this; the hold-out starts here.")
    watermark: int = Field(description="Newest event.")
    groups: int = Field(0, description="Groups of the hold-out with a right answer.")


class TooSmall(ValueError):
    """A table has too little data for a training and a hold-out."""


def groups_needed(policy: Policy) -> int:
    """Groups with which `policy.min_effect` is found with chance `policy.power`: the usual formula
    for paired means."""
    by_power = math.ceil((_z(policy) * policy.group_sd / policy.min_effect) ** 2)
    return max(policy.min_groups, by_power)


def detectable(groups: int, policy: Policy) -> float:
    """The smallest gain that a hold-out of so many groups finds with chance `policy.power`;
    infinite for none."""
    if not groups:
        return math.inf
    return _z(policy) * policy.group_sd / math.sqrt(groups)


def _z(policy: Policy) -> float:
    """Standard errors between no gain and a gain that is found with chance `policy.power`."""
    normal = NormalDist()
    return normal.inv_cdf((1 + policy.confidence) / 2) + normal.inv_cdf(policy.power)


def cut(rows: pl.DataFrame, model_type: ModelSpec, version: int) -> Cut:
    """The shortest hold-out of whole days before the newest row that has the groups the policy
    needs, each with a right answer.

    Raises TooSmall when that would leave less than half of the time to learn from.
    """
    table = model_type.table
    if rows.is_empty():
        raise TooSmall(
            f"The table {table.name} has no rows: ingest files, or see in the table rejects what "
            "was refused."
        )
    first = int(rows[table.time].min())  # type: ignore[arg-type]
    watermark = int(rows[table.time].max())  # type: ignore[arg-type]
    needed = groups_needed(model_type.policy)
    longest = int((watermark - first) / DAY_MS / 2)
    for days in range(1, longest + 1):
        holdout = watermark - days * DAY_MS + 1
        asked = started(rows, table, holdout, watermark)
        # Counting right answers takes longer than counting groups.
        if asked[table.group].n_unique() < needed and days < longest:
            continue
        groups = judged_groups(model_type, asked)
        if groups >= needed:
            return Cut(
                table_version=version,
                start=first,
                holdout=holdout,
                watermark=watermark,
                groups=groups,
            )
    raise TooSmall(_too_small(rows, model_type, longest, needed))


def _too_small(rows: pl.DataFrame, model_type: ModelSpec, longest: int, needed: int) -> str:
    """Why a hold-out of the `longest` whole days is no use, and when one will be."""
    table = model_type.table
    first = int(rows[table.time].min())  # type: ignore[arg-type]
    watermark = int(rows[table.time].max())  # type: ignore[arg-type]
    holdout = watermark - longest * DAY_MS + 1
    groups = judged_groups(model_type, started(rows, table, holdout, watermark))
    text = (
        f"The table {table.name} is too small to judge a model: a hold-out of {longest} days, half "
        f"of what is there, has {groups} {table.group} values with a right answer and the policy "
        f"needs {needed}. Ingest more history, or raise min_effect in the model's policy."
    )
    if groups:
        days = math.ceil(needed * longest / groups)
        text += f" At this pace, enough will be there on {when(first + 2 * days * DAY_MS)} (UTC)."
    return text


def judged_groups(model_type: ModelSpec, rows: pl.DataFrame) -> int:
    """Number of groups in `rows` with a right answer, which are those that the gate can use."""
    return len(np.unique(model_type.examples(rows).groups))


def started(rows: pl.DataFrame, table: Table, start: int, end: int) -> pl.DataFrame:
    """Rows up to `end` (inclusive) of the groups whose first row is not before `start`.

    A group that began earlier is left out whole: a model may have learnt from its beginning. Of
    lasting groups these are the rows from `start` to `end`.
    """
    return rows.filter(table.within(start) & (pl.col(table.time) <= end))


def some(rows: pl.DataFrame, table: Table, amount: int) -> pl.DataFrame:
    """Whole groups drawn at random, always the same ones, with `amount` rows at most."""
    if rows.height <= amount:
        return rows
    counts = rows.group_by(table.group).len().sort(table.group)
    counts = counts.sample(fraction=1.0, shuffle=True, seed=0)
    kept = counts.filter(pl.col("len").cum_sum() <= amount)
    return rows.join(kept.select(table.group), on=table.group, how="semi", maintain_order="left")


def halves(rows: pl.DataFrame, table: Table) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Every other group: both halves have seen the same times."""
    odd = pl.col(table.group).rank("dense") % 2 == 1
    return rows.filter(odd), rows.filter(~odd)
