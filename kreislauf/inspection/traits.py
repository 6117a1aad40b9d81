"""What the values of a column look like."""

from dataclasses import dataclass

import polars as pl

from kreislauf.inspection import names, times
from kreislauf.inspection.sample import Sample
from kreislauf.inspection.times import TimeReading
from models import conversion

EXAMPLES = 3
SHOWN = 30
"""Most characters of an example."""
LONGEST_ID = 100
"""Most characters of a value that may be an id."""
DECIMALS = r"^[+-]?\d*\.\d*[1-9]\d*$"
PLACEHOLDERS = ("null", "none", "nan", "undefined", "unknown", "(not set)", "n/a", "na", "nil")
"""What systems write where they have no value, in small letters."""


@dataclass(frozen=True)
class Traits:
    """A column of a source, and what its values look like."""

    name: str
    plain: str
    """The name without case and signs."""
    texts: pl.Series
    """Values as text, null for those that are empty."""
    shape: str
    """What its values are, in words: whole numbers, text, ..."""
    filled: float
    """Share of the rows that have a value."""
    different: int
    """Number of different values."""
    examples: list[str]
    is_float: bool
    """Whether they are stored as numbers that may have decimals."""
    times: list[TimeReading]
    """The ways to read it as times."""

    @property
    def present(self) -> pl.Series:
        """Values as text, without those that are empty."""
        return self.texts.filter(self.texts.is_not_null() & (self.texts.str.strip_chars() != ""))

    @property
    def is_placeholder(self) -> pl.Series:
        """Which of the present values stand for none."""
        return self.present.str.strip_chars().str.to_lowercase().is_in(PLACEHOLDERS)

    @property
    def is_empty(self) -> bool:
        return self.filled == 0

    @property
    def may_be_an_id(self) -> bool:
        """Whether values are short and without decimals."""
        return (
            self.shape in ("whole numbers", "text")
            and self.filled >= 0.5
            and int(self.texts.str.len_chars().max() or 0) <= LONGEST_ID  # type: ignore[arg-type]
        )

    @property
    def whole(self) -> pl.Series:
        """Values as whole numbers, without those that are empty; null for what is none."""
        return conversion.whole_numbers(self.present)

    @property
    def described(self) -> str:
        """What it holds, in a few words for a comment."""
        if self.is_empty:
            return "empty"
        rare = f", in {self.filled:.0%} of the rows" if self.filled < 0.995 else ""
        if self.different == 1:
            return f"always {self.examples[0]}{rare}"
        shown = ", ".join(self.examples[:2])
        if len(shown) > SHOWN:
            shown = self.examples[0]
        return f"{self.shape}, such as {shown}{rare}"


def of(sample: Sample) -> list[Traits]:
    """Of each column, in their order."""
    return [
        _traits(name, sample.frame[name], name in sample.layout.local_times)
        for name in sample.layout.names
    ]


def _traits(name: str, values: pl.Series, is_local: bool) -> Traits:
    texts = conversion.text(values)
    present = values.filter(texts.is_not_null() & (texts.str.strip_chars() != ""))
    of_time = times.readings(present, is_local)
    counts = conversion.text(present).value_counts(sort=True)
    shown = _as_shown(present).unique(maintain_order=True).head(EXAMPLES)
    return Traits(
        name,
        names.plain(name),
        texts,
        _shape(present),
        len(present) / max(1, len(values)),
        counts.height,
        [shortened(value) for value in shown],
        values.dtype.is_float(),
        of_time,
    )


def _as_shown(values: pl.Series) -> pl.Series:
    """Values as text; of times without what is finer than a second."""
    if isinstance(values.dtype, pl.Datetime):
        zone = " %Z" if values.dtype.time_zone else ""
        return values.dt.strftime(f"%Y-%m-%d %H:%M:%S{zone}")
    return conversion.text(values)


def _shape(values: pl.Series) -> str:
    """What values without nulls are, in words."""
    if values.is_empty():
        return "empty"
    if isinstance(values.dtype, pl.Datetime | pl.Date):
        return "times"
    if values.dtype == pl.Boolean:
        return "true or false"
    if not conversion.whole_numbers(values).null_count():
        return "whole numbers"
    texts = conversion.text(values)
    if values.dtype.is_numeric() or texts.str.contains(conversion.NUMBER).all():
        is_mixed = texts.str.contains(DECIMALS).mean() or 0
        return "numbers with decimals" if is_mixed > 0.5 else "numbers"  # type: ignore[operator]
    return "text"


def shortened(value: str) -> str:
    """A value on one line, as long as an example may be."""
    line = " ".join(value.split())
    return line if len(line) <= SHOWN else f"{line[: SHOWN - 3]}..."
