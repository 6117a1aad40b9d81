"""Values of a source to those of a table. What does not convert without loss becomes null.

A source's values come as Parquet stores them, as JSON has them, or, of CSV, as text.
"""

from collections.abc import Callable

import polars as pl

from models.mapping_column import ISO, OWN_OFFSET, UNIT_MS, Column
from models.session_names import LONGEST_USER
from models.table import Table

WHOLE = r"^[+-]?\d+(\.0*)?$"
"""Text that is a whole number."""
WHOLE_NAME = r"^(-?\d+)\.0+$"
"""Text of a float that is a whole number, as an id."""
NULL = r"\N"
"""Text that stands for no value in exports of MySQL, Postgres and Hive."""
NUMBER = r"^[+-]?\d+(\.\d*)?$"
OFFSET = r"[+-]\d\d:?\d\d$"
"""The end of a time that says how far from UTC it is."""
ISO_FORMS = {
    r"^(\d{4}-\d\d-\d\d)T": "$1 ",
    r" ?(Z|UTC)$": "+00:00",
}
"""Patterns of forms of an ISO time, and what makes each the form that is read, in turn."""
RARE_ISO_FORMS = {
    r"^(\d{4}-\d\d-\d\d)t": "$1 ",
    r"(:\d\d),(\d+)": "$1.$2",
    r" ?z$": "+00:00",
    r"(:\d\d(?:\.\d+)?) ?([+-]\d\d)$": "$1$2:00",
    r"( \d\d:\d\d) ?([+-]\d\d:?\d\d)$": "$1:00$2",
}
"""The same of forms that are looked for only where a value is not read without them."""
EXACT = 2**53
"""Floats from here on do not hold every whole number."""


def whole_numbers(values: pl.Series) -> pl.Series:
    """Int64, of integers, of floats and decimals that are whole, and of text such as 12 or 12.0."""
    dtype = values.dtype
    if dtype.is_integer():
        return values.cast(pl.Int64, strict=False)
    if dtype.is_float():
        whole = values.is_finite() & (values == values.floor()) & (values.abs() < EXACT)
        return _only(values, whole).cast(pl.Int64, strict=False)
    if dtype.is_decimal():
        cast = values.cast(pl.Int64, strict=False)
        return _only(cast, cast.cast(dtype, strict=False) == values)
    if dtype == pl.String:
        as_written = values.cast(pl.Int64, strict=False)
        if as_written.null_count() == values.null_count():
            return as_written
    texts = text(values).str.strip_chars()
    whole_texts = _only(texts, texts.str.contains(WHOLE))
    return whole_texts.str.replace(r"\.0*$", "").cast(pl.Int64, strict=False)


def text(values: pl.Series) -> pl.Series:
    """Text as it is; of numbers, the shortest that has the same value; null for empty text, for
    bytes that are not UTF-8, and for NaN."""
    dtype = values.dtype
    if dtype.is_float():
        as_written = values.fill_nan(None).cast(pl.String)
        whole = whole_numbers(values).cast(pl.String)
        return whole.zip_with(whole.is_not_null(), as_written)
    if dtype == pl.Boolean:
        return values.cast(pl.String)
    texts = values.cast(pl.String, strict=False)
    return _only(texts, texts != "")


def names(values: pl.Series) -> pl.Series:
    """Ids as text, without blanks around them; a whole number is its digits, 7.0 too: a column of
    whole numbers with gaps is often written so. Null for what stands for no value."""
    texts = text(values).str.strip_chars().str.replace(WHOLE_NAME, "$1")
    return _only(texts, (texts != "") & (texts != NULL))


def users(values: pl.Series) -> pl.Series:
    """Ids, null where one is too long for the name of a session."""
    texts = names(values)
    return _only(texts, texts.str.len_chars() <= LONGEST_USER)


def choices(values: pl.Series, column: Column, words: pl.Enum) -> pl.Series:
    """The words that `column.values` has for the source's values, or the words themselves."""
    if not column.values and values.dtype == pl.String:
        as_written = values.cast(words, strict=False)
        if as_written.null_count() == values.null_count():
            return as_written
    texts = text(values)
    mapped = column.values or {word: word for word in words.categories}
    stripped = texts.str.strip_chars()
    words_of = stripped.replace_strict(mapped, default=None, return_dtype=pl.String)
    return words_of.cast(words, strict=False)


def milliseconds(values: pl.Series, column: Column) -> pl.Series:
    """Int64, ms since 1970 UTC; what is finer is cut off.

    Times that Parquet stores as such need neither unit nor format. Without a zone of their own they
    have the column's, or else UTC. In a replay they come as ISO text.
    """
    dtype = values.dtype
    if isinstance(dtype, pl.Datetime | pl.Date):
        return _epoch(values.cast(pl.Datetime("us", getattr(dtype, "time_zone", None))), column)
    if column.format:
        return _parsed(text(values), column)
    assert column.unit, "Mapping.check"
    factor = UNIT_MS[column.unit]
    whole = whole_numbers(values)
    exact = _scaled(whole, factor)
    if exact.null_count() == values.null_count():
        return exact
    texts = text(values).str.strip_chars()
    fractions = _only(texts, texts.str.contains(NUMBER)).cast(pl.Float64, strict=False) * factor
    # A float of 1661776215.278 s is a little less than that many ms.
    in_ms = fractions.round(3).floor().cast(pl.Int64, strict=False)
    replayed = _parsed(texts, Column(constant="replayed", zone=column.zone))
    return _first_of(exact, in_ms, replayed)


def _scaled(whole: pl.Series, factor: float) -> pl.Series:
    """Whole numbers of a unit in ms; null where they are too large."""
    if factor == 1:
        return whole
    if factor > 1:
        limit = 2**63 // int(factor) - 1
        return _only(whole, whole.is_between(-limit, limit)) * int(factor)
    return whole // round(1 / factor)


def _parsed(texts: pl.Series, column: Column) -> pl.Series:
    """Text to ms, by the column's format; ISO if it has none."""
    if column.format and column.format != ISO:
        if OWN_OFFSET.search(column.format):
            return _epoch(_datetimes(texts, column.format, "UTC"), column)
        return _epoch(_datetimes(texts, column.format, None), column)
    plain = _replaced(texts.str.strip_chars(), ISO_FORMS)
    times = _iso(plain, column)
    if times.null_count() == plain.null_count():
        return times
    return _first_of(times, _iso(_replaced(plain, RARE_ISO_FORMS), column))


def _replaced(texts: pl.Series, forms: dict[str, str]) -> pl.Series:
    for pattern, replacement in forms.items():
        texts = texts.str.replace(pattern, replacement)
    return texts


def _iso(plain: pl.Series, column: Column) -> pl.Series:
    """Text such as 2026-11-28 12:30:00.5+01:00 to ms; without an offset in the column's zone."""
    has_offset = plain.str.contains(OFFSET) & plain.str.contains(":")
    with_offset = _only(plain, has_offset).str.replace(r" ?([+-]\d\d:?\d\d)$", "$1")
    absolute = _epoch(_datetimes(with_offset, "%Y-%m-%d %H:%M:%S%.f%#z", "UTC"), column)
    if not column.zone:
        return absolute
    local = _only(plain, ~has_offset)
    days = _epoch(_datetimes(local, "%Y-%m-%d", None), column)
    times = _epoch(_datetimes(local, "%Y-%m-%d %H:%M:%S%.f", None), column)
    minutes = _epoch(_datetimes(local, "%Y-%m-%d %H:%M", None), column)
    return _first_of(absolute, times, minutes, days)


def _datetimes(texts: pl.Series, pattern: str, zone: str | None) -> pl.Series:
    """Text by a pattern of chrono; null where it does not fit."""
    if texts.null_count() == len(texts):
        return pl.Series(texts.name, [None] * len(texts), pl.Datetime("us", zone))
    return texts.str.to_datetime(pattern, time_unit="us", time_zone=zone, strict=False)


def _epoch(times: pl.Series, column: Column) -> pl.Series:
    """Datetimes to ms; an hour that a clock change leaves out or has twice is null."""
    if times.dtype.time_zone is None:  # type: ignore[attr-defined]
        zone = column.zone or "UTC"
        times = times.dt.replace_time_zone(zone, ambiguous="null", non_existent="null")
    return times.dt.timestamp("us") // 1000


def _only(values: pl.Series, wanted: pl.Series) -> pl.Series:
    """The values that are wanted; the others are null."""
    return pl.select(pl.when(wanted).then(values).alias(values.name)).to_series()


def _first_of(*series: pl.Series) -> pl.Series:
    """The first of several values that is not null, at each position."""
    merged = series[0]
    for alternative in series[1:]:
        merged = merged.zip_with(merged.is_not_null(), alternative)
    return merged


Conversion = Callable[[pl.Series], pl.Series]


def of(table: Table, name: str, column: Column) -> tuple[Conversion, str, str]:
    """How values become those of a column of the table, in what words, and the reason code of one
    that does not. Raises ValueError for a type that no mapping makes."""
    dtype = table.dtypes[name]
    if column.user:
        return users, f"text of at most {LONGEST_USER} characters", "out-of-range"
    if name == table.time:
        return lambda values: milliseconds(values, column), _time_in_words(column), "wrong-time"
    if isinstance(dtype, pl.Enum):
        words = ", ".join(column.values or dtype.categories)
        return lambda values: choices(values, column, dtype), f"one of {words}", "unknown-value"
    if dtype.is_integer():
        whole = "a whole number"
        return lambda values: whole_numbers(values).cast(dtype, strict=False), whole, "wrong-type"
    if name in table.names:
        return names, "an id", "wrong-type"
    if dtype == pl.String:
        return text, "text", "wrong-type"
    if dtype.is_float():
        return lambda values: values.cast(dtype, strict=False), "a number", "wrong-type"
    raise ValueError(f"No mapping makes values of the type {dtype}.")


def _time_in_words(column: Column) -> str:
    """What a time has to be."""
    words = f"a time in {column.unit}" if column.unit else f"a time as {column.format}"
    if column.format == ISO:
        words = "a time in ISO format" + ("" if column.zone else " with its offset from UTC")
    if column.zone and column.zone != "UTC":
        words += f" that {column.zone} has once (not when the clocks change)"
    return words
