"""Rows of the table `questions`: what customers asked, and which known answer was right."""

from typing import Annotated

import msgspec
import pandera.polars as pa
import polars as pl

from models.table import Table

OUT_OF_SCOPE = "oos"
"""Intent of a question that no known answer fits: people answered it."""
FIRST_MS = 946_684_800_000
"""2000-01-01 UTC: what is earlier was not meant as ms."""
END_MS = 4_102_444_800_000
"""2100-01-01 UTC."""
LONGEST_TEXT = 10_000
"""Most characters of a question."""
LONGEST_NAME = 100
"""Most characters of an id or of an intent."""
Id = Annotated[str, msgspec.Meta(min_length=1, max_length=LONGEST_NAME)] | int


class RawQuestion(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    question: Id
    ts: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
    text: Annotated[str, msgspec.Meta(min_length=1, max_length=LONGEST_TEXT)]
    intent: Annotated[str, msgspec.Meta(min_length=1, max_length=LONGEST_NAME)]


class Question(pa.DataFrameModel):
    """What a validated question promises."""

    question: str = pa.Field(
        str_length={"min_value": 1, "max_value": LONGEST_NAME},
        description="id; a number is its digits",
    )
    ts: pl.Int64 = pa.Field(ge=FIRST_MS, lt=END_MS, description="ms since 1970 UTC, in 2000..2099")
    text: str = pa.Field(str_length={"min_value": 1, "max_value": LONGEST_TEXT})
    intent: str = pa.Field(
        str_length={"min_value": 1, "max_value": LONGEST_NAME},
        description=f"name of the right answer; {OUT_OF_SCOPE} where no known one fits",
    )

    class Config:
        strict = True


QUESTIONS = Table(
    name="questions",
    line=RawQuestion,
    schema=Question,
    key=("question",),
    time="ts",
    group="question",
)
