"""Where the values of a table's column come from, as a mapping says it."""

import re
from datetime import datetime
from typing import Any, Literal

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

UNIT_MS = {"s": 1000.0, "ms": 1.0, "us": 1e-3, "ns": 1e-6}
"""Milliseconds in each unit of time."""
ISO = "iso"
"""The format of times such as 2026-11-28 12:30:00+01:00, with a space or a T."""

OWN_OFFSET = re.compile(r"%[#:]*z")
"""Sign of a format whose times say how far from UTC they are."""


class Strict(BaseModel):
    """Part of a mapping: a word that it does not have is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Column(Strict):
    """Where the values of a table's column come from."""

    source: str | None = Field(
        None, alias="from", description="The source's column; a.b is b in a nested object a."
    )
    constant: str | None = Field(None, description="A value that every row gets.")
    values: dict[str, str] | None = Field(
        None, description="The source's values, and what the table has for each."
    )
    unit: Literal["s", "ms", "us", "ns"] | None = Field(
        None, description="Of a time that is a number since 1970 UTC."
    )
    format: str | None = Field(
        None, description="Of a time that is text: iso, or a pattern such as %d.%m.%Y %H:%M."
    )
    zone: str | None = Field(
        None, description="Time zone, such as Europe/Berlin, of times that name none."
    )
    user: str | None = Field(
        None, description="The source's column of who did it, where sessions are made by a gap."
    )
    gap_minutes: float | None = Field(
        None, gt=0, le=10_080, description="A user who does nothing for longer begins a session."
    )

    @model_validator(mode="before")
    @classmethod
    def _without_blanks(cls, content: Any) -> Any:
        """A word with nothing behind it is as if it were not there."""
        return without_blanks(content)

    @field_validator("zone")
    @classmethod
    def _is_a_zone(cls, zone: str | None) -> str | None:
        if zone is not None:
            try:
                pl.Series([datetime(2000, 1, 1)]).dt.replace_time_zone(zone)
            except pl.exceptions.PolarsError as error:
                raise ValueError(f"{zone!r} is no time zone; one is Europe/Berlin") from error
        return zone

    @model_validator(mode="after")
    def _has_one_origin(self) -> "Column":
        if [self.source, self.constant, self.user].count(None) != 2:
            raise ValueError("say either `from`, the source's column, or `constant`, or `user`")
        if (self.user is None) != (self.gap_minutes is None):
            raise ValueError("`user` and `gap_minutes` go together")
        if self.unit and self.format:
            raise ValueError("say either `unit`, for numbers, or `format`, for text")
        if self.format and "%Z" in self.format:
            raise ValueError(
                "%Z in `format` reads the name of a zone and cannot heed it: write %z for an "
                "offset such as +0200, or the name itself, and `zone`"
            )
        return self

    @property
    def read(self) -> str | None:
        """The source's column that is read, if there is one."""
        return self.source or self.user

    def fault(self, name: str, dtype: Any, is_time: bool) -> str | None:
        """What is wrong if this is where the table's column `name` comes from, if anything."""
        if is_time:
            return self._fault_of_time(name)
        for word in ("unit", "format", "zone"):
            if getattr(self, word):
                return f"`columns.{name}.{word}` has no meaning: {name} is no time. Delete it."
        if isinstance(dtype, pl.Enum):
            return self._fault_of_words(name, dtype.categories.to_list())
        if self.values is not None:
            return f"`columns.{name}.values` has no meaning: {name} takes any value. Delete it."
        return None

    def _fault_of_time(self, name: str) -> str | None:
        if self.values is not None:
            return f"`columns.{name}.values` has no meaning: {name} is a time. Delete it."
        if not self.unit and not self.format:
            return (
                f"`columns.{name}` has to say what its times are: `unit` (s, ms, us or ns) for "
                "numbers, `format` for text."
            )
        has_offset = not self.format or self.format == ISO or OWN_OFFSET.search(self.format)
        if not self.zone and not has_offset:
            return f"`columns.{name}` has to say the `zone` of its times: their format has no %z."
        return None

    def _fault_of_words(self, name: str, allowed: list[str]) -> str | None:
        words = set((self.values or {}).values())
        if self.constant is not None and not self.values:
            words.add(self.constant)
        wrong = sorted(words - set(allowed))
        if not wrong:
            return None
        return (
            f"`columns.{name}` makes {', '.join(wrong)}, which {name} never is. It is "
            f"{', '.join(allowed)}."
        )


def without_blanks(content: Any) -> Any:
    """What a YAML file says, without words that have nothing behind them."""
    if not isinstance(content, dict):
        return content
    return {word: value for word, value in content.items() if value not in ("", None)}
