"""Rows of the table `searches`.

One line is a search with the list that it brought, one row a result in it.
"""

from typing import Annotated

import msgspec
import pandera.polars as pa
import polars as pl

from models.table import Table

FIRST_MS = 946_684_800_000
"""2000-01-01 UTC: what is earlier was not meant as ms."""
END_MS = 4_102_444_800_000
"""2100-01-01 UTC."""
RESULTS = 50
"""Maximum results of a list."""
FEATURES = 100
"""Maximum features of a result. The input of the ONNX file is as wide, whatever is used of it."""
LARGEST = 1e30
"""Maximum of a feature, and without its sign of a negative one: float32 has room for it."""
GRADES = 4
"""The best grade; 0 is of no use to who searched."""
LONGEST_ID = 100
"""Most characters of an item's or a search's id."""
LONGEST_QUERY = 500
"""Most characters of a query."""
Id = Annotated[str, msgspec.Meta(min_length=1, max_length=LONGEST_ID)] | int
Number = Annotated[float, msgspec.Meta(ge=-LARGEST, le=LARGEST)]


class RawResult(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    item: Id
    features: Annotated[list[Number | None], msgspec.Meta(min_length=1, max_length=FEATURES)]
    grade: Annotated[int, msgspec.Meta(ge=0, le=GRADES)]
    position: Annotated[int, msgspec.Meta(ge=1, le=RESULTS)] | None


class RawSearch(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    search: Id
    query: Annotated[str, msgspec.Meta(max_length=LONGEST_QUERY)]
    ts: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
    results: Annotated[list[RawResult], msgspec.Meta(min_length=1, max_length=RESULTS)]


ID_LENGTH = {"min_value": 1, "max_value": LONGEST_ID}


class Result(pa.DataFrameModel):
    """What a validated result promises."""

    search: str = pa.Field(str_length=ID_LENGTH, description="id of the list")
    query: str = pa.Field(str_length={"min_value": 0, "max_value": LONGEST_QUERY})
    ts: pl.Int64 = pa.Field(ge=FIRST_MS, lt=END_MS, description="ms since 1970 UTC, in 2000..2099")
    item: str = pa.Field(str_length=ID_LENGTH, description="raw id; a number is its digits")
    features: pl.List = pa.Field(
        dtype_kwargs={"inner": pl.Float32}, description="raw values, null where one is missing"
    )
    grade: pl.Int64 = pa.Field(
        ge=0, le=GRADES, description="a person's judgement, or what a customer did"
    )
    position: pl.Int64 = pa.Field(
        ge=1, le=RESULTS, nullable=True, description="place at which a customer saw it"
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
