"""Which column has the types of events, and what its values mean."""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import polars as pl

from kreislauf.inspection import names
from kreislauf.inspection.roles import Reading, Role
from kreislauf.inspection.traits import Traits
from models.choices import CHOOSE

MAX_TYPES = 500
"""Most different values of a column that has types of events."""


@dataclass(frozen=True)
class EventTypes:
    """The role of a table's column of words, and rows that are no events of articles."""

    role: Role
    only: dict[str, list[str]]
    """Values of the column that are wanted, if some are left out."""
    left_out: dict[str, int]
    """Number of rows of each value that is left out."""


def of(
    columns: list[Traits],
    column: str,
    words: list[str],
    taken: Collection[str],
    articles: Collection[str],
    paths: list[str],
) -> EventTypes:
    """How `column`, whose values are `words`, comes from the source's columns that are not taken.

    A value of which no row has a value in one of the columns `articles` is left out: these are no
    events of an article. `paths` are those of the files.
    """
    candidates = [t for t in columns if t.name not in taken and _is_candidate(t, words)]
    with_plain = [t for t in candidates if _word_share(t, words) > 0]
    candidates = with_plain or [t for t in candidates if t.different > 1] or candidates
    if not candidates:
        return EventTypes(_constant(columns, column, words, paths), {}, {})
    has_article = _has_value(columns, articles)
    readings = []
    only: dict[str, list[str]] = {}
    left_out: dict[str, int] = {}
    for traits in candidates:
        counts, without = _counts(traits, has_article)
        readings.append(_reading(traits.name, counts, words))
        if len(candidates) == 1 and without:
            # As they are written: `only` compares values with their blanks.
            is_wanted = traits.texts.str.strip_chars().is_in(list(counts))
            only = {traits.name: traits.texts.filter(is_wanted).unique().sort().to_list()}
            left_out = without
    doubts = list(_doubts(readings[0], only, left_out, words))
    if len(candidates) > 1:
        doubts = ["Several columns may have the types of the events. Take one of them:"]
    return EventTypes(Role(column, readings, doubts), only, left_out)


def _doubts(
    reading: Reading, only: dict[str, list[str]], left_out: dict[str, int], words: list[str]
) -> Iterator[str]:
    """Sentences about rows that are left out, or could be."""
    for value in left_out:
        if word := meaning(value, words):
            yield (
                f"{value} looks like one of the {word}, but none of its rows has an article. If "
                "they are in a list, a mapping cannot read them: export one row an article."
            )
    values = reading.spec.get("values", {})
    wanted = ", ".join(value for value, word in values.items() if word != CHOOSE)
    if CHOOSE in values.values() and wanted:
        also = "its word under `only`"
        if not only:
            also = f"add `only: {{{reading.source}: [{wanted}]}}`"
        yield (
            "To leave the rows of a value out, rather than have them rejected, delete its line, "
            f"and {also}."
        )


def _is_candidate(traits: Traits, words: list[str]) -> bool:
    if traits.is_empty or traits.different > MAX_TYPES:
        return False
    return traits.plain in names.TYPES or _word_share(traits, words) > 0.5


def _word_share(traits: Traits, words: list[str]) -> float:
    """Share of the values whose meaning is plain."""
    if traits.different > MAX_TYPES:
        return 0
    values = traits.texts.drop_nulls()
    counts = values.value_counts()
    is_plain = [meaning(value, words) is not None for value in counts[traits.name]]
    return float(counts.filter(is_plain)["count"].sum()) / max(1, len(values))


def meaning(value: str, words: list[str]) -> str | None:
    """The word of the table for a source's value, if it is plain."""
    if value.strip() in words:
        return value.strip()
    word = names.TYPE_OF.get(names.plain_word(value))
    return word if word in words else None


def _has_value(columns: list[Traits], chosen: Collection[str]) -> pl.Series | None:
    """Whether a row has a value in one of the columns; None without columns."""
    present = [t.texts.is_not_null() for t in columns if t.name in chosen]
    if not present:
        return None
    return (
        pl.DataFrame({str(i): p for i, p in enumerate(present)})
        .select(pl.any_horizontal(pl.all()))
        .to_series()
    )


def _counts(traits: Traits, has_article: pl.Series | None) -> tuple[dict[str, int], dict[str, int]]:
    """Rows of each value, most frequent first; and of those of which no row has an article, if
    others have one."""
    values = traits.texts.str.strip_chars()
    counted = values.drop_nulls().value_counts()
    by_count = counted.sort("count", traits.name, descending=[True, False])
    counts = dict(by_count.iter_rows())
    if has_article is None or not has_article.any():
        return counts, {}
    with_article = set(values.filter(has_article).drop_nulls())
    without = {value: count for value, count in counts.items() if value not in with_article}
    return {v: count for v, count in counts.items() if v not in without}, without


def _reading(name: str, counts: dict[str, int], words: list[str]) -> Reading:
    """Types of events from a column with these values, with a choice for each that is not plain."""
    if set(counts) <= set(words):
        return Reading({"from": name}, {"from": name}, {})
    values: dict[str, Any] = {}
    notes: dict[tuple[str, ...], str] = {}
    for value, count in counts.items():
        values[value] = meaning(value, words) or CHOOSE
        note = f"{count:,} rows" if count > 1 else "1 row"
        if values[value] == CHOOSE:
            note += f": {', '.join(words[:-1])} or {words[-1]}; without this line they are rejected"
        notes["values", value] = note
    assumed = {v: words[0] if word == CHOOSE else word for v, word in values.items()}
    return Reading({"from": name, "values": values}, {"from": name, "values": assumed}, notes)


def _constant(columns: list[Traits], column: str, words: list[str], paths: list[str]) -> Role:
    """Each row is of one type, because no column says which: it is asked, unless the files' names
    say clicks."""
    orders = [t.name for t in columns if t.plain in names.ORDERS or t.plain.startswith("lineitem")]
    of_files = {_word_of_file(path, words) for path in paths}
    named = of_files.pop() if len(of_files) == 1 else None
    if named == words[0] and not orders:
        doubt = (
            f"No column says what happened. The file's name says {words[0]}: each row becomes one."
        )
        constant = {"constant": words[0]}
        return Role(column, [Reading(constant, constant, {})], [doubt])
    doubt = "No column says what happened."
    likely = words[0]
    if orders and words[-1] == "orders":
        doubt += f" That there is one called {orders[0]} speaks for orders."
        likely = words[-1]
    elif named:
        doubt += f" The file's name speaks for {named}."
        likely = named
    else:
        doubt += " Each row becomes one of the type that you choose."
    note = f"{', '.join(words[:-1])} or {words[-1]}"
    reading = Reading({"constant": CHOOSE}, {"constant": likely}, {("constant",): note})
    return Role(column, [reading], [doubt])


def _word_of_file(path: str, words: list[str]) -> str | None:
    """The type of events of which a file's name has a word, if it is but one."""
    parts = re.split(r"[\W\d_]+", path.rsplit("/", 1)[-1].lower())
    of_parts = {word for part in parts if (word := meaning(part, words))}
    return of_parts.pop() if len(of_parts) == 1 else None
