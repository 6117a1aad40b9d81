"""Fields that tables have in common: ids, numbers, times."""

from typing import Annotated, Any

import msgspec
import pandera.polars as pa

FIRST_MS = 946_684_800_000
"""2000-01-01 UTC: what is earlier was not meant as ms."""
END_MS = 4_102_444_800_000
"""2100-01-01 UTC."""
LONGEST_ID = 100
"""Most characters of an id, or of a name."""
Natural = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
"""A whole number of a raw line, such as a time in ms or an id."""
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=LONGEST_ID)]
"""A short text of a raw line."""
Id = Name | int
"""An id of a raw line that is kept as text; a number is its digits."""


def time() -> Any:
    """Rule of a column with the time of a row."""
    return pa.Field(ge=FIRST_MS, lt=END_MS, description="ms since 1970 UTC, in 2000..2099")


def name(description: str | None = None) -> Any:
    """Rule of a column with an id that is text, or a name."""
    return pa.Field(str_length={"min_value": 1, "max_value": LONGEST_ID}, description=description)
