"""A model type whose groups are customers, who stay for months; the tests copy it to a temporary
`models/customers/__init__.py`, beside `models/tiny`."""

from typing import Annotated

import msgspec
import pandera.polars as pa
import polars as pl
from models.tiny import Tiny

from models.spec import Examples
from models.table import Table

Natural = Annotated[int, msgspec.Meta(ge=0)]


class RawPurchase(msgspec.Struct, forbid_unknown_fields=True):
    order: Natural
    customer: Natural
    ts: Natural
    price: float
    returned: bool


class Purchase(pa.DataFrameModel):
    order: pl.Int64 = pa.Field(ge=0)
    customer: pl.Int64 = pa.Field(ge=0)
    ts: pl.Int64 = pa.Field(ge=0)
    price: pl.Float64 = pa.Field(ge=0)
    returned: pl.Boolean


class Customers(Tiny):
    name = "customers"
    table = Table(
        "purchases",
        RawPurchase,
        Purchase,
        key=("order",),
        time="ts",
        group="customer",
        lasting=True,
    )

    def examples(self, rows: pl.DataFrame) -> Examples:
        rows = rows.sort("customer", "order")
        examples = super().examples(rows.with_columns(order=pl.int_range(pl.len())))
        return Examples(examples.inputs, examples.labels, rows["customer"].to_numpy())


SPEC = Customers()
