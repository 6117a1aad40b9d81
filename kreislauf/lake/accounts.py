"""Accounts: where every line and every row of a load went. They balance, or they do not exist."""

from collections import Counter
from collections.abc import Iterable
from typing import Literal

from pydantic import BaseModel, ConfigDict, model_validator

from models.mapping import Mapping

LoadKind = Literal["file", "stream", "replay"]
"""What a load read: a raw file, a batch of a stream, or rejects."""
OTHER = ("other", "Other rules")
"""Reason code and rule under which lines are counted whose own rule is not named."""
NAMED = 10
"""Most rules that accounts name."""


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
    lines_left_out: int = 0
    """Lines that the mapping does not want."""
    rows_in: int
    rows_kept: int
    rows_rejected: int
    """Rows of the rejected lines; 1 for a line that did not decode."""
    rows_duplicate: int
    reasons: tuple[Reason, ...] = ()
    """The most frequent ones, with positions in a line left out; all others, last, as `OTHER`."""

    @model_validator(mode="after")
    def _balance(self) -> "Counts":
        lines = self.lines_loaded + self.lines_rejected + self.lines_blank + self.lines_left_out
        if self.lines_in != lines:
            raise ValueError("the lines do not balance; nothing was loaded, please report this")
        if self.rows_in != self.rows_kept + self.rows_rejected + self.rows_duplicate:
            raise ValueError("the rows do not balance; nothing was loaded, please report this")
        return self


class Accounts(Counts):
    """The counts of one load: a file, a batch of a stream, or a replay of rejects."""

    table: str
    kind: LoadKind
    source: str
    sha256: str | None
    source_name: str | None = None
    """Folder, prefix or topic whose clock it moved; None if it moved none, as a replay."""
    newest: int | None = None
    """Newest event of that source after it that enough groups agree on, ms since 1970 UTC."""
    mapping: Mapping | None = None
    """By which the source was read, if it is not the table's own."""
    version: int
    """The table's version that this load made."""
    already_loaded: bool = False
    """Whether the file was in the table before: these are then the accounts of the first load."""


def total(loads: Iterable[Counts]) -> Counts:
    """The sum of the counts of several loads."""
    loads = list(loads)
    lines: Counter[tuple[str, str]] = Counter()
    for load in loads:
        for reason in load.reasons:
            lines[reason.reason, reason.rule] += reason.lines
    names = [name for name in Counts.model_fields if name != "reasons"]
    sums = {name: sum(getattr(load, name) for load in loads) for name in names}
    return Counts(**sums, reasons=most_frequent(lines))


def most_frequent(lines: Counter[tuple[str, str]]) -> tuple[Reason, ...]:
    """The most frequent of (reason, rule), by the number of lines that have them: `NAMED` of them,
    and then the lines of all others together, if there are any."""
    named = [item for item in lines.items() if item[0] != OTHER]
    frequent = sorted(named, key=lambda item: (-item[1], item[0]))[:NAMED]
    others = lines.total() - sum(count for _, count in frequent)
    if others:
        frequent.append((OTHER, others))
    return tuple(
        Reason(reason=reason, rule=rule, lines=count) for (reason, rule), count in frequent
    )
