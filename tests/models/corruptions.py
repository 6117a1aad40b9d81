"""Raw lines of any table, each wrong in one way."""

from typing import Any

import msgspec
import polars as pl

from models.table import Table

LONG = "x" * 1_000_000
"""A text that no column may take: a line is kept in memory, and in every answer about it."""


def line_of(table: Table, row: dict[str, Any]) -> dict[str, Any]:
    """The raw line of a row."""
    if table.items is None:
        return row
    own = set(table.line.__struct_fields__)
    line = {name: value for name, value in row.items() if name in own}
    item = {name: value for name, value in row.items() if name not in own}
    return line | {table.items: [item]}


def corrupt_lines(table: Table, row: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Lines of a row that are wrong, by what is wrong with them."""
    line = line_of(table, row)
    lines = {"unknown field": line | {"no_such_field": 1}}
    if table.items is not None:
        lines["no rows"] = line | {table.items: []}
        lines["unknown field of a row"] = line | {
            table.items: [line[table.items][0] | {"no_such_field": 1}]
        }
    for fault, corrupted in corrupt_rows(table, row).items():
        lines[fault] = line_of(table, corrupted)
    return lines


def corrupt_rows(table: Table, row: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Values of a row that are wrong, by what is wrong with them."""
    schema = table.schema.to_schema().columns
    rows = {}
    fields = msgspec.structs.fields((table.flat or table).line)
    required = {field.encode_name for field in fields if field.required}
    for name, dtype in table.dtypes.items():
        if name in required:
            rows[f"{name} missing"] = {key: value for key, value in row.items() if key != name}
        rows[f"{name} an object"] = row | {name: {"no": "value"}}
        if not schema[name].nullable:
            rows[f"{name} null"] = row | {name: None}
        if dtype == pl.String:
            rows[f"{name} of a million letters"] = row | {name: LONG}
    time = row[table.time]
    wrong_times = {
        "in seconds": time // 1_000,
        "in microseconds": time * 1_000,
        "before 1970": -time,
    }
    for fault, value in wrong_times.items():
        rows[f"time {fault}"] = row | {table.time: value}
    return rows
