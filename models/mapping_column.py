"""Where the values of a table's column come from, as a mapping says it."""

from typing import Any, Literal
from zoneinfo import ZoneInfo

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

UNIT_MS = {"s": 1000.0, "ms": 1.0, "us": 1e-3, "ns": 1e-6}
"""Milliseconds in each unit of time."""
ISO = "iso"
"""The format of times such as 2026-11-28 12:30:00+01:00, with a space or a T."""


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

    @field_validator("values", mode="before")
    @classmethod
    def _as_text(cls, values: Any) -> Any:
        """YAML reads 0 and true as no text; as values of a source they are what is written."""
        if not isinstance(values, dict):
            return values
        return {str(key): value for key, value in values.items()}

    @field_validator("zone")
    @classmethod
    def _is_a_zone(cls, zone: str | None) -> str | None:
        if zone is not None:
            try:
                ZoneInfo(zone)
            except (KeyError, ValueError, OSError) as error:
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
        return self

    @property
    def read(self) -> str | None:
        """The source's column that is read, if there is one."""
        return self.source or self.user

    def fault_of_words(self, name: str, dtype: Any) -> str | None:
        """What is wrong with the words that the table's column `name` shall have, if anything."""
        if not isinstance(dtype, pl.Enum):
            if self.values is None:
                return None
            return f"`columns.{name}.values` has no meaning: {name} takes any value. Delete it."
        allowed = dtype.categories.to_list()
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
