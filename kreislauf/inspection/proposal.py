"""The mapping that is proposed for a source, with what is doubtful about it."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from kreislauf.inspection import event_types, ids, names, roles, shared_sessions
from kreislauf.inspection.event_types import EventTypes
from kreislauf.inspection.json_columns import JSON_LINES
from kreislauf.inspection.roles import Reading, Role
from kreislauf.inspection.sample import Sample
from kreislauf.inspection.traits import Traits
from models import spec
from models.mapping import Mapping
from models.spec import ModelSpec
from models.table import Table

COLUMNS = {"session", "aid", "ts", "type"}
"""Columns of the tables for which a mapping is proposed."""
CHOSEN_ABOVE = "delete this line if you choose it above"


@dataclass(frozen=True)
class Proposal:
    """How a source may become the rows of a model type's table."""

    model_type: ModelSpec
    roles: list[Role]
    """Of each column of the table."""
    ignored: dict[str, str]
    """Columns that are not used, and what each seems to be."""
    only: dict[str, list[str]]
    left_out: dict[str, int]
    """Number of rows of each value that `only` leaves out."""
    names: list[str] | None
    """Of the columns of CSV without a header."""
    is_needless: bool
    """Whether the source has the table's own columns, and loads without a mapping."""

    @property
    def assumed(self) -> Mapping | None:
        """The mapping with the first that fits in the place of each choice, to show what it would
        do; None if nothing fits a column."""
        if not all(role.readings for role in self.roles):
            return None
        columns: dict[str, dict[str, Any]] = {}
        used: list[str | None] = [name for role in self.roles for name in decided(role)]
        for role in self.roles:
            first = next((r for r in role.readings if r.source not in used), role.readings[0])
            columns[role.column] = first.assumed
            used.append(first.source)
        content: dict[str, Any] = {
            "model": self.model_type.name,
            "columns": columns,
            "ignored": [name for name in self.ignored if name not in used],
            "only": self.only,
        }
        if self.names:
            content["csv"] = {"names": self.names}
        return Mapping.model_validate(content)

    @property
    def choices(self) -> list[str]:
        """Columns of the table of which something is to be chosen."""
        if self.is_needless:
            return []
        return [role.column for role in self.roles if role.is_open or role.readings[0].is_open]


def of(sample: Sample, columns: list[Traits], model: str | None) -> Proposal:
    """A proposal for the model type `model`, whose table has the columns session, aid, ts and type;
    by default for the usual one, or for its twin if the ids are text.

    Raises ValueError for a model type with another table, or if there is none of this name.
    """
    table = spec.load(model or spec.DEFAULT).table
    if set(table.dtypes) != COLUMNS:
        raise ValueError(
            f"A mapping is proposed for the columns {', '.join(sorted(COLUMNS))}; the table "
            f"{table.name} has {', '.join(table.dtypes)}. Write its mapping by hand."
        )
    dtype = table.dtypes["type"]
    assert isinstance(dtype, pl.Enum), "each table of COLUMNS has words for the types of events"
    readable = [t for t in columns if t.name]
    by_column, types = _roles(sample, readable, table.time, dtype.categories.to_list())
    by_column["session"] = shared_sessions.asked(
        by_column["session"], columns, ids.can_make_sessions(model)
    )
    model_type = ids.model_for([by_column["session"], by_column["aid"]], columns, model)
    for name in ("session", "aid"):
        role = by_column[name]
        of_ids = ids.doubts(role, columns, model_type.table)
        by_column[name] = replace(role, doubts=[*role.doubts, *of_ids])
    chosen = [by_column[name] for name in table.dtypes]
    return Proposal(
        model_type,
        chosen,
        dict(_ignored(sample, columns, chosen)),
        types.only,
        types.left_out,
        sample.layout.names if not sample.layout.has_header else None,
        _is_needless(chosen, sample, columns, table),
    )


def _roles(
    sample: Sample, columns: list[Traits], time_name: str, words: list[str]
) -> tuple[dict[str, Role], EventTypes]:
    """Where each column of the table comes from."""
    time = roles.time(columns, time_name)
    taken: list[str] = []
    taken += time.sources
    session = roles.session(columns, taken)
    taken += decided(session)
    article = roles.article(columns, taken)
    if article.is_guess and sample.layout.nested:
        lists = " or ".join(sample.layout.nested)
        article = replace(article, doubts=[roles.LIST_DOUBT.format(lists), *article.doubts])
    taken += decided(article)
    types = event_types.of(columns, "type", words, taken, article.sources, sample.paths)
    of_type = types.role.sources
    session = _without(session, [*of_type, *decided(article)])
    article = _without(article, of_type)
    return {"session": session, "aid": article, time_name: time, "type": types.role}, types


def decided(role: Role) -> list[str]:
    """The source's column of a role, unless it has to be chosen."""
    return [] if role.is_open else role.sources


def _without(role: Role, taken: list[str]) -> Role:
    """A role whose column is to be chosen, without columns that are something else."""
    if not role.is_open:
        return role
    readings = [reading for reading in role.readings if reading.source not in taken]
    doubts = role.doubts
    if role.readings and not readings:
        nothing = roles.NOTHING_DOUBT.format(roles.WHAT[role.column])
        doubts = [nothing, *(doubt for doubt in doubts if not doubt.endswith(":"))]
    return replace(role, readings=readings, doubts=doubts)


def _is_needless(chosen: list[Role], sample: Sample, columns: list[Traits], table: Table) -> bool:
    """Whether the source loads as it is."""
    of_file = {t.name for t in columns} - sample.layout.in_path
    if not of_file <= set(table.dtypes) or not sample.layout.has_header:
        return False
    if not set(table.dtypes) <= {t.name for t in columns}:
        return False
    if sample.frame.is_empty():
        return True
    by_name = {t.name: t for t in columns}
    return all(
        not role.is_open and _is_own(role.readings[0], by_name[role.column], role.column, table)
        for role in chosen
    )


def _is_own(reading: Reading, traits: Traits, column: str, table: Table) -> bool:
    """Whether a column of the table has its own name and values in the source."""
    own: list[dict[str, Any]] = [{"from": column}]
    if column == table.time:
        own = [{"from": column, "unit": "ms"}]
        if roles.is_stored_time(reading, traits):
            own.append({"from": column, "format": "iso"})
    return reading.spec in own


def _ignored(
    sample: Sample, columns: list[Traits], chosen: list[Role]
) -> Iterator[tuple[str, str]]:
    """Columns that the proposal does not use for sure, and comments on them; an object of which no
    field is used as one."""
    used = {name for role in chosen for name in decided(role)}
    offered = {name for role in chosen if role.is_open for name in role.sources}
    unused: dict[str, str] = {}
    for traits in columns:
        if traits.name not in used and traits.name not in sample.layout.in_path:
            comment = _seems(traits)
            if traits.name in offered:
                comment = f"{CHOSEN_ABOVE}; {traits.described}"
            unused[traits.name] = comment
    for name, kind in sample.layout.nested.items():
        unused[name] = f"{kind}: a mapping does not read inside"
    if sample.layout.form != JSON_LINES:
        yield from unused.items()
        return
    whole: dict[str, list[str]] = {}
    for name in unused:
        if not _holds(name, used | offered):
            whole.setdefault(_unused_object(name, used | offered), []).append(name)
    for name, fields in whole.items():
        if name in unused:
            yield name, unused[name]
        else:
            shown = [field.removeprefix(f"{name}.") or "''" for field in fields[:3]]
            more = ", ..." if len(fields) > len(shown) else ""
            yield name, f"an object with {', '.join(shown)}{more}"


def _unused_object(name: str, used: set[str]) -> str:
    """The outermost object that holds a field and none that is used; or the field."""
    parts = name.split(".")
    for end in range(1, len(parts)):
        outer = ".".join(parts[:end])
        if outer not in used and not _holds(outer, used):
            return outer
    return name


def _holds(name: str, used: set[str]) -> bool:
    """Whether a field of an object is used."""
    return any(column.startswith(f"{name}.") for column in used)


def _seems(traits: Traits) -> str:
    """What an unused column seems to be."""
    kinds = (
        (names.SESSIONS, "perhaps another session"),
        (names.USERS, "perhaps the user"),
        (names.ORDERS, "perhaps the order"),
        (names.ARTICLES, "perhaps another id of the article"),
    )
    seems = [words for kind, words in kinds if traits.plain in kind]
    if not traits.name:
        seems = ["a column without a name"]
    if traits.times and not seems:
        seems = ["perhaps another time"]
    return "; ".join([*seems, traits.described])
