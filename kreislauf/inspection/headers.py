"""Whether the first record of a CSV file is a header."""

import polars as pl

from kreislauf.inspection import names, times


def is_event(first: list[str], rows: pl.DataFrame) -> bool:
    """Whether the first record is an event: a cell of it is a time, or an event's word over others.

    `rows` are those below, by the cells of the first.
    """
    if any(times.readings(pl.Series([cell])) for cell in first if cell):
        return True
    if any(names.plain(cell) in names.COLUMNS for cell in first):
        return False
    return any(_is_word(cell) and _has_words(rows[cell]) for cell in first)


def _is_word(cell: str) -> bool:
    return names.plain_word(cell) in names.TYPE_OF


def _has_words(values: pl.Series) -> bool:
    """Whether most values are words of events."""
    counts = values.drop_nulls().cast(pl.String).value_counts()
    words = counts.filter([_is_word(cell) for cell in counts[values.name]])
    return bool(words["count"].sum() * 2 > counts["count"].sum())
