"""Rows of the table `searches`.

One line is a search with the list that it brought, one row a result in it.
"""

from typing import Annotated

import msgspec
import pandera.polars as pa
import polars as pl

from models import fields
from models.fields import Id, Name, Natural
from models.table import Table

RESULTS = 50
"""Maximum results of a list."""
FEATURES = 100
"""Maximum features of a result. The input of the ONNX file is as wide, whatever is used of it."""
CATEGORIES = 10
"""Maximum categories of a result. The input of the ONNX file has as many columns, as for
features."""
LARGEST = 1e30
"""Maximum of a feature, and without its sign of a negative one: float32 has room for it."""
GRADES = 4
"""The best grade; 0 is of no use to who searched."""
LONGEST_QUERY = 500
"""Most characters of a query."""
Number = Annotated[float, msgspec.Meta(ge=-LARGEST, le=LARGEST)]
Category = Name | Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
"""A category of a raw line: text, or a number that is kept as its digits."""


class RawResult(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    item: Id
    features: Annotated[list[Number | None], msgspec.Meta(min_length=1, max_length=FEATURES)]
    grade: Annotated[int, msgspec.Meta(ge=0, le=GRADES)]
    position: Annotated[int, msgspec.Meta(ge=1, le=RESULTS)] | None
    categories: Annotated[list[Category | None], msgspec.Meta(max_length=CATEGORIES)] | None = None


class RawSearch(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    search: Id
    query: Annotated[str, msgspec.Meta(max_length=LONGEST_QUERY)]
    ts: Natural
    results: Annotated[list[RawResult], msgspec.Meta(min_length=1, max_length=RESULTS)]


class Result(pa.DataFrameModel):
    """What a validated result promises."""

    search: str = fields.name("id of the list")
    query: str = pa.Field(str_length={"min_value": 0, "max_value": LONGEST_QUERY})
    ts: pl.Int64 = fields.time()
    item: str = fields.name("raw id; a number is its digits")
    features: pl.List = pa.Field(
        dtype_kwargs={"inner": pl.Float32}, description="raw values, null where one is missing"
    )
    grade: pl.Int64 = pa.Field(
        ge=0, le=GRADES, description="a person's judgement, or what a customer did"
    )
    position: pl.Int64 = pa.Field(
        ge=1, le=RESULTS, nullable=True, description="place at which a customer saw it"
    )
    categories: pl.List = pa.Field(
        nullable=True,
        dtype_kwargs={"inner": pl.String},
        description="raw values, null where one is missing; null if there is no list",
    )

    class Config:
        strict = True


SEARCHES = Table(
    name="searches",
    line=RawSearch,
    schema=Result,
    key=("search", "item"),
    time="ts",
    group="query",
    lasting=True,
)
