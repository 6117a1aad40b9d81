"""Records of CSV to a table's rows, by the compiled loop.

It takes the records whose values are whole numbers as digits alone, perhaps with spaces before
them, and words that the mapping names. Any other record is left to `mapped`, which is the rule: a
test holds one against the other.
"""

import string
from collections import Counter
from collections.abc import Callable

import numpy as np
import polars as pl

from kreislauf.lake.template import CHOICE, INTEGER, MAX_INTEGER, REST, WORD, Template, Token
from models import conversion
from models.mapping import Mapping
from models.mapping_column import Column
from models.records import RawRecords
from models.table import Table

PLAIN = set(string.printable) - set(string.whitespace) | {" "}
"""Characters of a word that the loop compares as they are."""


def read_plain_records(
    table: Table, mapping: Mapping, raw: RawRecords
) -> tuple[pl.DataFrame, np.ndarray] | None:
    """Rows of the records that the compiled loop takes, with their positions as `line`, and the
    positions of the others; None if it takes none of such a file."""
    from kreislauf.lake.fast_decode import read_lines

    template = template_of(table, mapping, raw)
    if template is None:
        return None
    tokens = [token for token in template.head if token.column]
    values = np.empty((len(tokens), len(raw)), np.int64)
    counts = np.empty(len(raw), np.int64)
    lines = raw.lines
    data = np.frombuffer(lines.data, np.uint8)
    nothing = np.empty((0, 0), np.int64)
    spans = (data, lines.starts, lines.ends)
    read: Callable[..., int] = read_lines
    read(*spans, *template.arrays, len(template.head), values, nothing, counts)
    fits = counts > 0
    columns = {"line": pl.Series(np.flatnonzero(fits), dtype=pl.UInt32)}
    by_column = dict(zip((token.column for token in tokens), values, strict=True))
    for name, dtype in table.dtypes.items():
        column = mapping.columns[name]
        if column.source is None:
            change, _, _ = conversion.of(table, name, column)
            constant = change(pl.Series([column.constant]))
            columns[name] = constant.new_from_index(0, int(fits.sum()))
        elif isinstance(dtype, pl.Enum):
            words = _words(column, dtype)
            categories = pl.Series(list(words.values()), dtype=dtype).to_physical().to_numpy()
            columns[name] = pl.Series(categories[by_column[name][fits]]).cat.to(dtype)
        else:
            change, _, _ = conversion.of(table, name, column)
            columns[name] = change(pl.Series(by_column[name][fits]))
    rows = pl.DataFrame(columns)
    if any(column.null_count() for column in rows):
        rows = rows.drop_nulls()
        fits = np.isin(np.arange(len(raw)), rows["line"].to_numpy())
    return rows, np.flatnonzero(~fits)


def template_of(table: Table, mapping: Mapping, raw: RawRecords) -> Template | None:
    """The tokens of a record; None if the compiled loop cannot read such records."""
    uses = Counter(column.read for column in mapping.columns.values() if column.read)
    # The loop takes a tab for a space, and a blank line for a record of which it reads nothing.
    if mapping.only or raw.delimiter == "\t" or not uses or max(uses.values()) > 1:
        return None
    readers = {column.read: name for name, column in mapping.columns.items() if column.read}
    tokens: list[Token] = []
    for position, source in enumerate(raw.names):
        if position:
            tokens.append(Token(WORD, (raw.delimiter.encode(),)))
        if source not in readers:
            tokens.append(Token(REST, low=ord(raw.delimiter)))
            continue
        token = _value(table, mapping, readers[source], raw.delimiter)
        if token is None:
            return None
        tokens.append(token)
    return Template(tokens, [], has_gaps=False)


def _value(table: Table, mapping: Mapping, name: str, delimiter: str) -> Token | None:
    """The token of a column of the table; None if the loop cannot read its values."""
    dtype = table.dtypes[name]
    column = mapping.columns[name]
    if dtype.is_integer() and not column.format:
        return Token(INTEGER, low=0, high=MAX_INTEGER, column=name)
    if isinstance(dtype, pl.Enum):
        words = _words(column, dtype)
        is_known = set(words.values()) <= set(dtype.categories)
        if is_known and all(_is_plain(word, delimiter) for word in words):
            return Token(CHOICE, tuple(word.encode() for word in words), column=name)
    return None


def _words(column: Column, dtype: pl.Enum) -> dict[str, str]:
    """The source's words and what the table has for each; none comes before one that it begins."""
    words = column.values or {word: word for word in dtype.categories}
    return dict(sorted(words.items(), key=lambda pair: len(pair[0]), reverse=True))


def _is_plain(word: str, delimiter: str) -> bool:
    """Whether a word stands in a record as it is."""
    return word == word.strip() != "" and set(word) <= PLAIN - {delimiter, '"'}
