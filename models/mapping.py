"""How a source's columns become those of a table, as a YAML file says it.

```yaml
columns:
  session: visitorid
  aid: itemid
  ts: {from: timestamp, unit: ms}
  type: {from: event, values: {view: clicks, addtocart: carts, transaction: orders}}
ignored: [transactionid]
```
"""

import hashlib
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, field_validator, model_validator
from ruamel.yaml import YAML, YAMLError

from models import choices, session_names, spec
from models.mapping_column import Column, Strict, without_blanks
from models.spec import ModelSpec
from models.table import Table


class MappingError(ValueError):
    """A mapping that cannot be used; the message names file, place and cure."""


class Delimited(Strict):
    """What a CSV file does not say itself."""

    names: list[str] = Field(min_length=1, description="Names of the columns: there is no header.")


class Mapping(Strict):
    """How the rows of a source become those of a table: a row of the source is one of the table."""

    model: str | None = Field(
        None, description="The model type that the rows are for; by default session_recommender."
    )
    columns: dict[str, Column] = Field(
        description="Where each column of the table comes from; a name alone is a source's column."
    )
    ignored: list[str] = Field([], description="Columns that are left out on purpose.")
    only: dict[str, list[str]] = Field(
        {}, description="Values of the source's columns that are wanted; other rows are left out."
    )
    csv: Delimited | None = Field(None, description="For CSV files without a header.")

    @field_validator("columns", mode="before")
    @classmethod
    def _in_full(cls, columns: Any) -> Any:
        """`aid: itemid` is short for `aid: {from: itemid}`."""
        if not isinstance(columns, dict):
            return columns
        return {
            name: {"from": column} if isinstance(column, str) else column
            for name, column in columns.items()
        }

    @model_validator(mode="before")
    @classmethod
    def _without_blanks(cls, content: Any) -> Any:
        """A list whose last entry was taken away is as if it were not there."""
        return without_blanks(content)

    @property
    def sources(self) -> list[str]:
        """Columns of the source that are read, without repetition."""
        used = [column.read for column in self.columns.values() if column.read]
        return list(dict.fromkeys([*used, *self.only]))

    @property
    def digest(self) -> str:
        """Hex digest of all that it says; words that it does not use do not count."""
        return hashlib.sha256(self.model_dump_json(exclude_defaults=True).encode()).hexdigest()

    def gap_ms(self, table: Table) -> int | None:
        """The gap of inactivity that ends a session, in ms; None if sessions are given."""
        minutes = self.columns[table.group].gap_minutes
        return None if minutes is None else round(minutes * 60_000)

    def check(self, table: Table) -> None:
        """Raises MappingError if the mapping does not make the rows of `table`."""
        faults = [f"{name} is missing." for name in table.dtypes if name not in self.columns]
        faults += [f"{name} is none." for name in self.columns if name not in table.dtypes]
        if faults:
            raise MappingError(
                f"`columns` has to name each column of the table {table.name}, "
                f"{', '.join(table.dtypes)}, and no other. {' '.join(faults)}"
            )
        for name, column in self.columns.items():
            if column.user and (fault := session_names.fault(table, name)):
                raise MappingError(fault)
            if fault := column.fault(name, table.dtypes[name], name == table.time):
                raise MappingError(fault)
        both = sorted(set(self.ignored) & set(self.sources))
        if both:
            raise MappingError(f"{', '.join(both)} cannot be both used and ignored.")

    def check_columns(self, columns: list[str]) -> None:
        """Raises MappingError if these are not the columns that a flat source has to have."""
        missing = [name for name in self.sources if name not in columns]
        unmentioned = [name for name in columns if name not in (*self.sources, *self.ignored)]
        if missing:
            raise MappingError(
                f"lacks {', '.join(missing)}; its columns are {', '.join(columns)}. "
                "Mend `from` in the mapping."
            )
        if unmentioned:
            raise MappingError(
                f"has columns that the mapping does not mention: {', '.join(unmentioned)}. "
                "Use them, or name them under `ignored`."
            )


def json_schema() -> dict[str, Any]:
    """The schema of a mapping for editors, which is kept in docs/."""
    schema = Mapping.model_json_schema()
    columns = schema["properties"]["columns"]
    columns["additionalProperties"] = {
        "anyOf": [{"type": "string"}, columns["additionalProperties"]]
    }
    return schema


def identity(table: Table) -> Mapping:
    """The mapping of a source that has the table's own columns, times in ms."""
    columns: dict[str, Any] = {name: {"from": name} for name in table.dtypes}
    columns[table.time] = {"from": table.time, "unit": "ms"}
    return Mapping.model_validate({"columns": columns})


def find(path: str | None, model: str | None) -> tuple[ModelSpec, Mapping | None]:
    """The model type that a source is for, and the mapping in the YAML file, if there is one.

    It is `model`, or the mapping's own, or the default. Raises MappingError, and ValueError if
    there is no such model type.
    """
    if path is None:
        return spec.load(model or spec.DEFAULT), None
    mapping = _parse(path)
    if model and mapping.model and model != mapping.model:
        raise MappingError(
            f"The mapping {path} is for {mapping.model}, and not for {model}: leave `model` out of "
            "one of them."
        )
    try:
        model_type = spec.load(model or mapping.model or spec.DEFAULT)
    except ValueError as error:
        raise MappingError(f"The mapping {path} does not fit. {error}") from error
    return model_type, _checked(mapping, path, model_type.table)


def read(path: str, table: Table) -> Mapping:
    """The mapping in a YAML file. Raises MappingError, with the place in the file."""
    return _checked(_parse(path), path, table)


def _checked(mapping: Mapping, path: str, table: Table) -> Mapping:
    """The mapping of a file, if it makes the rows of `table`. Raises MappingError."""
    try:
        mapping.check(table)
    except MappingError as error:
        raise MappingError(f"The mapping {path} does not fit. {error}") from error
    return mapping


def _parse(path: str) -> Mapping:
    """What a YAML file says, whatever table it is for. Raises MappingError."""
    try:
        text = Path(path).read_text()
        # All values stay text, as they are written: 01 is not 1, and false is not False.
        content = YAML(typ="base").load(text)
        pending = choices.pending(text)
        if pending:
            raise MappingError(
                f"The mapping {path} waits for your choice in {'; '.join(pending)}. Write there, "
                f"in the place of {choices.CHOOSE}, what the comments beside it offer."
            )
        if not content:
            raise MappingError(f"The mapping {path} is empty: `make inspect` proposes one.")
        return Mapping.model_validate(content)
    except OSError as error:
        raise MappingError(f"The mapping {path} cannot be read: {error.strerror}.") from error
    except (YAMLError, UnicodeDecodeError) as error:
        raise MappingError(f"The mapping {path} is no YAML: {error}") from error
    except ValidationError as error:
        faults = "; ".join(map(_in_words, error.errors()))
        raise MappingError(f"The mapping {path} has faults. {faults}.") from error


def _in_words(fault: Any) -> str:
    """A fault that pydantic has named, with its place in the file."""
    place = fault["loc"]
    message = fault["msg"]
    if fault["type"] == "extra_forbidden":
        parts: dict[int, type[Strict]] = {1: Mapping, 2: Delimited, 3: Column}
        fields = parts[len(place)].model_fields
        words = ", ".join(field.alias or name for name, field in fields.items())
        message = f"there is no such word; there are {words}"
    return f"`{'.'.join(map(str, place))}`: {message}"
