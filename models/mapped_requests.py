"""Requests and feedback in a shop's own words, by the mapping that its raw files are read with.

So what is asked, of the gateway or in a batch, is asked as what was learnt.
"""

import itertools
from typing import Any

import msgspec

from models import conversion, json_fields
from models import mapping as mappings
from models.mapping import Mapping, MappingError
from models.spec import ModelSpec

SHOWN = 100
"""Most characters of a value in a message."""


class MappedRequests:
    """Bodies of one model type, from the columns of a source to those of its table."""

    def __init__(self, model_type: ModelSpec, mapping: Mapping):
        """Raises MappingError if the model type's requests have no list of rows."""
        table = model_type.table
        if table.items is None:
            raise MappingError(
                f"Requests of {model_type.name} are no lists of rows of its table, so no mapping "
                "says what they are: leave `mapping` and KREISLAUF_MAPPING out."
            )
        self.model_type = model_type
        self.mapping = mapping
        self.rows_field = table.items
        self.of_request = [name for name in table.dtypes if name in table.line.__struct_fields__]
        self.of_rows = [name for name in table.dtypes if name not in self.of_request]
        self.user_field = mapping.columns[table.group].user
        self.gap_ms = mapping.gap_ms(table)
        self.tree = json_fields.tree_of(mapping)
        self.conversions = {
            name: conversion.of(table, name, mapping.columns[name]) for name in table.dtypes
        }
        self.kinds = {
            word: model_type.kinds[event_type]
            for column in mapping.columns.values()
            for word, event_type in (column.values or {}).items()
            if event_type in model_type.kinds
        }
        """Kind of feedback by the source's word for it."""

    def request(self, body: dict[str, Any]) -> dict[str, Any]:
        """The request with the table's columns. Where sessions are made by a gap, its user is the
        source's, named as in a load, and of events that all have a time those of the user's last
        session are kept.

        Raises ValueError that names event, field and value.
        """
        body = dict(body)
        if self.user_field and body.get(self.user_field) is not None:
            user = self._of_request(self.model_type.table.group, body.pop(self.user_field))
            body.setdefault("user", user)
        for name in self.of_request:
            source = self.mapping.columns[name].source
            if source in body and name not in body:
                body[name] = self._of_request(name, body.pop(source))
        rows = body.get(self.rows_field)
        if not isinstance(rows, list):
            return body
        places = [f"Request 0: {self.rows_field}[{i}]" for i in range(len(rows))]
        read = {place: self._read(place, row) for place, row in zip(places, rows, strict=True)}
        fields = self._wanted(read)
        columns = {name: self._column(name, fields) for name in self.of_rows}
        converted = [
            {name: values[i] for name, values in columns.items() if values[i] is not None}
            for i in range(len(fields))
        ]
        body[self.rows_field] = self._of_last_session(converted)
        return body

    def reaction(self, content: dict[str, Any]) -> dict[str, Any]:
        """The feedback with the kind that the shop's word for it means, if it is one."""
        word = content.get("kind")
        if isinstance(word, str) and word in self.kinds:
            return content | {"kind": self.kinds[word]}
        return content

    def _of_request(self, name: str, value: Any) -> Any:
        """The value of a table's column that is one of the request, and not of its rows."""
        if isinstance(value, dict | list):
            field = self.mapping.columns[name].read
            raise ValueError(f"Request 0: Expected `{field}` to be a single value.")
        return self._converted(name, {"Request 0": value})[0]

    def _of_last_session(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The rows since their user was inactive for a gap; all rows if one has no time, or if
        sessions are given."""
        time = self.model_type.table.time
        if self.gap_ms is None or not all(time in row for row in rows):
            return rows
        times = sorted(row[time] for row in rows)
        beginnings = [b for a, b in itertools.pairwise(times) if b - a > self.gap_ms]
        return [row for row in rows if not beginnings or row[time] >= beginnings[-1]]

    def _read(self, place: str, row: Any) -> dict[str, Any]:
        """The columns that are read of the row at a place."""
        fields: dict[str, Any] = {}
        if not isinstance(row, dict):
            raise ValueError(f"{place} is no object.")
        try:
            json_fields.collect(row, self.tree, fields)
        except msgspec.ValidationError as error:
            raise ValueError(f"{place}: {error}.") from error
        return fields

    def _wanted(self, rows: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """The rows, by their places, that `only` of the mapping does not leave out."""
        for name, values in self.mapping.only.items():
            column = json_fields.column_of(name, [row.get(name) for row in rows.values()])
            wanted = conversion.text(column).is_in(values).fill_null(False)
            rows = {place: rows[place] for place, keep in zip(rows, wanted, strict=True) if keep}
        return rows

    def _column(self, name: str, rows: dict[str, dict[str, Any]]) -> list[Any]:
        """The values of a table's column; None where a row has none."""
        column = self.mapping.columns[name]
        if column.source is None:
            return self._converted(name, dict.fromkeys(rows, column.constant))
        return self._converted(name, {place: row.get(column.source) for place, row in rows.items()})

    def _converted(self, name: str, values: dict[str, Any]) -> list[Any]:
        """Values of the source, by their places, as those of a table's column. An id stays the
        number or the text as which it was sent."""
        if not values:
            return []
        change, shape, _ = self.conversions[name]
        converted = change(json_fields.column_of(name, list(values.values()))).to_list()
        for (place, value), result in zip(values.items(), converted, strict=True):
            if result is None and value not in (None, ""):
                field = self.mapping.columns[name].read
                shown = str(value)[:SHOWN]
                raise ValueError(f"{place}: Expected `{field}` to be {shape}, got '{shown}'.")
        if name == self.model_type.table.time:
            return converted
        return [
            value if str(value) == str(result) else result
            for value, result in zip(values.values(), converted, strict=True)
        ]


def requests_of(path: str) -> MappedRequests | None:
    """How bodies are read by the mapping in a YAML file; None without one. Raises MappingError, and
    ValueError if there is no such model type."""
    model_type, mapping = mappings.find(path or None, None)
    if mapping is None:
        return None
    return MappedRequests(model_type, mapping)
