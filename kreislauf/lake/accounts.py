"""Accounts: where every line and every row of a load went. They balance, or they do not exist."""

from collections import Counter
from collections.abc import Iterable
from typing import Literal

from pydantic import BaseModel, ConfigDict, model_validator

Kind = Literal["file", "stream", "replay"]


class Reason(BaseModel):
    """Why lines were rejected, and how many."""

    model_config = ConfigDict(frozen=True)

    reason: str
    rule: str
    lines: int


class Counts(BaseModel):
    """Where lines and rows went. Raises pydantic's ValidationError if they do not balance."""

    model_config = ConfigDict(frozen=True)

    lines_in: int
    lines_loaded: int
    lines_rejected: int
    lines_blank: int
    rows_in: int
    rows_kept: int
    rows_rejected: int
    """Rows of the rejected lines; 1 for a line that did not decode."""
    rows_duplicate: int
    reasons: tuple[Reason, ...] = ()
    """The most frequent ones, with positions in a line left out."""

    @model_validator(mode="after")
    def _balance(self) -> "Counts":
        if self.lines_in != self.lines_loaded + self.lines_rejected + self.lines_blank:
            raise ValueError("the lines do not balance; nothing was loaded, please report this")
        if self.rows_in != self.rows_kept + self.rows_rejected + self.rows_duplicate:
            raise ValueError("the rows do not balance; nothing was loaded, please report this")
        return self


class Accounts(Counts):
    """The counts of one load: a file, a batch of a stream, or a replay of rejects."""

    table: str
    kind: Kind
    source: str
    sha256: str | None
    version: int
    """The table's version that this load made."""
    already_loaded: bool = False
    """The file was in the table before: nothing was written, these are the accounts of then."""


def total(loads: Iterable[Counts]) -> Counts:
    """The sum of the counts of several loads."""
    loads = list(loads)
    lines: Counter[tuple[str, str]] = Counter()
    for r in (r for load in loads for r in load.reasons):
        lines[r.reason, r.rule] += r.lines
    names = [name for name in Counts.model_fields if name != "reasons"]
    return Counts(
        **{n: sum(getattr(x, n) for x in loads) for n in names}, reasons=most_frequent(lines)
    )


def most_frequent(lines: Counter[tuple[str, str]]) -> tuple[Reason, ...]:
    """The ten most frequent of (reason, rule), by how many lines have them."""
    frequent = sorted(lines.items(), key=lambda item: (-item[1], item[0]))[:10]
    return tuple(
        Reason(reason=reason, rule=rule, lines=count) for (reason, rule), count in frequent
    )
