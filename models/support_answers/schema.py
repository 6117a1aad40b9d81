"""Rows of the table `questions`: what customers asked, and which known answer was right."""

from typing import Annotated

import msgspec
import pandera.polars as pa
import polars as pl

from models import fields
from models.fields import Id, Name, Natural
from models.table import Table

OUT_OF_SCOPE = "oos"
"""Intent of a question that no known answer fits: people answered it."""
LONGEST_TEXT = 10_000
"""Most characters of a question."""


class RawQuestion(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    question: Id
    ts: Natural
    text: Annotated[str, msgspec.Meta(min_length=1, max_length=LONGEST_TEXT)]
    intent: Name


class Question(pa.DataFrameModel):
    """What a validated question promises."""

    question: str = fields.name("id; a number is its digits")
    ts: pl.Int64 = fields.time()
    text: str = pa.Field(str_length={"min_value": 1, "max_value": LONGEST_TEXT})
    intent: str = fields.name(f"name of the right answer; {OUT_OF_SCOPE} where no known one fits")

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
