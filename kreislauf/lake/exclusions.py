"""Stretches of time that no model learns from: what the monitor distrusts, and what people say.

A person's newest verdict on a moment wins over older ones, and over the monitor whenever it speaks.
"""

import sys
from collections.abc import Iterable

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from kreislauf.clock import when
from kreislauf.lake import journal

DISTRUSTED = "distrusted"
"""Name of the table in the lake with what the monitor distrusts."""
VERDICTS = "verdicts"
"""Name of the table in the lake with what people say."""
NO_END = sys.maxsize
"""End of a stretch that goes on, ms since 1970 UTC."""

Stretch = tuple[int, int]
"""First and last moment, ms since 1970 UTC, both inclusive."""


class HumanVerdict(BaseModel):
    """What a person says of a stretch of a table."""

    model_config = ConfigDict(frozen=True)

    table: str
    start: int = Field(description="First moment, ms since 1970 UTC.")
    end: int | None = Field(
        None, description="Last moment, ms since 1970 UTC; None for a shop that stays as it is now."
    )
    trusted: bool = Field(True, description="Whether models learn from these rows.")
    who: str = Field(min_length=1)
    reason: str = Field(min_length=1)
    at: int = Field(description="When it was said, ms since 1970 UTC.")

    @property
    def stretch(self) -> Stretch:
        """The stretch that it is about."""
        if self.end is None:
            return self.start, NO_END
        return self.start, self.end

    @property
    def sentence(self) -> str:
        """The verdict for people."""
        end = "on"
        if self.end is not None:
            end = f"to {when(self.end)}"
        trusts = "trusts"
        if not self.trusted:
            trusts = "distrusts"
        reason = self.reason.rstrip(".")
        return f"{self.who} {trusts} the rows from {when(self.start)} {end}: {reason}."

    def touches(self, stretch: Stretch) -> bool:
        """Whether it is about any moment of a stretch."""
        return self.stretch[0] <= stretch[1] and stretch[0] <= self.stretch[1]

    def binds(self, holdout: int | None) -> bool:
        """Whether a monitor must follow that compares with a hold-out from `holdout` (ms) on.

        A verdict without an end does not bind one that compares with the shop after its start:
        what such a monitor distrusts is something new.
        """
        return self.end is not None or holdout is None or holdout < self.start


def exclude(table: str, start: int, end: int, reason: str, holdout: int | None = None) -> None:
    """Leave the rows of `table` from `start` to `end` (ms since 1970 UTC, inclusive) out, but those
    that a person trusts.

    Models neither learn from them nor are judged by them. They stay in the table. `holdout` (ms) is
    where the hold-out begins that they were compared with.
    """
    row = {"table": table, "start": start, "end": end, "reason": reason, "holdout": holdout}
    rows = pl.DataFrame([row], schema_overrides={"holdout": pl.Int64})
    journal.append_once(DISTRUSTED, f"{table}/{start}/{end}", rows)


def record_verdict(verdict: HumanVerdict) -> None:
    """Store what a person says; every later training, gate and monitor run follows it."""
    key = f"{verdict.table}/{verdict.start}/{verdict.end}/{verdict.at}"
    rows = pl.DataFrame([verdict.model_dump()], schema_overrides={"end": pl.Int64})
    journal.append_once(VERDICTS, key, rows)


def verdicts(table: str) -> list[HumanVerdict]:
    """What people say of `table`, oldest first."""
    return _of_table(journal.read(VERDICTS), table)


def trusted(table: str, holdout: int | None = None) -> list[Stretch]:
    """What people trust, in order and apart, against a monitor that compares with a hold-out from
    `holdout` (ms) on; by default against any. A stretch without an end has `NO_END`."""
    return combine(verdict for verdict in verdicts(table) if verdict.binds(holdout))


def combine(verdicts: Iterable[HumanVerdict]) -> list[Stretch]:
    """What is trusted by verdicts, oldest first, of which the newest wins."""
    stretches: list[Stretch] = []
    for verdict in verdicts:
        stretches = subtract(stretches, [verdict.stretch])
        if verdict.trusted:
            stretches.append(verdict.stretch)
    return merge(stretches)


def intervals(table: str) -> list[Stretch]:
    """Start and end of each stretch of time that is left out, in their order and apart."""
    human = _of_table(journal.read(VERDICTS), table)
    left_out: list[Stretch] = []
    for verdict in human:
        left_out = subtract(left_out, [verdict.stretch])
        if not verdict.trusted:
            left_out.append(verdict.stretch)
    for start, end, holdout in _excluded(journal.read(DISTRUSTED), table):
        binding = [verdict.stretch for verdict in human if verdict.binds(holdout)]
        left_out += subtract([(start, end)], binding)
    return merge(left_out)


def _of_table(rows: pl.DataFrame, table: str) -> list[HumanVerdict]:
    """Rows of the table `verdicts`, oldest first."""
    if rows.is_empty():
        return []
    ours = rows.filter(pl.col("table") == table).sort("at", maintain_order=True)
    return [HumanVerdict.model_validate(row) for row in ours.iter_rows(named=True)]


def _excluded(rows: pl.DataFrame, table: str) -> list[tuple[int, int, int | None]]:
    """Start, end and `holdout` of rows of the table `distrusted`."""
    if rows.is_empty():
        return []
    if "holdout" not in rows.columns:  # An earlier version of Kreislauf wrote none.
        rows = rows.with_columns(holdout=pl.lit(None, pl.Int64))
    return rows.filter(pl.col("table") == table).select("start", "end", "holdout").rows()


def subtract(stretches: Iterable[Stretch], holes: Iterable[Stretch]) -> list[Stretch]:
    """What of the stretches is in none of the holes."""
    rest = list(stretches)
    for first, last in holes:
        before = [(start, min(end, first - 1)) for start, end in rest]
        after = [(max(start, last + 1), end) for start, end in rest]
        rest = [(start, end) for start, end in before + after if start <= end]
    return sorted(set(rest))


def touching(stretches: Iterable[Stretch], stretch: Stretch) -> list[Stretch]:
    """Those of the stretches that share a moment with a stretch, or end directly before it."""
    first, last = stretch
    return [(start, end) for start, end in stretches if start <= last and first <= end + 1]


def merge(stretches: Iterable[Stretch]) -> list[Stretch]:
    """The same moments as stretches in order, none of which touches the next."""
    merged: list[Stretch] = []
    for start, end in sorted(stretches):
        if merged and start <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged
