"""Bytes as text."""

from contextlib import suppress

import polars as pl


def as_text(values: pl.DataFrame) -> pl.DataFrame:
    """Columns of bytes as text, null where they are not UTF-8."""
    with suppress(pl.exceptions.ComputeError):
        return values.with_columns(pl.col(pl.Binary).cast(pl.String))
    names = values.select(pl.col(pl.Binary)).columns
    return values.with_columns(pl.Series(n, map(_decoded, values[n]), pl.String) for n in names)


def _decoded(value: bytes | None) -> str | None:
    if value is None:
        return None
    with suppress(UnicodeDecodeError):
        return value.decode()
    return None
