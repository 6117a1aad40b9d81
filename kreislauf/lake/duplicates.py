"""Rows that are there already: of each other, or of rows that the table has."""

import numpy as np
import polars as pl


def drop_repeated(rows: pl.DataFrame, key: tuple[str, ...]) -> pl.DataFrame:
    """The first row of each key.

    Only rows whose hash occurs twice are compared: mostly none.
    """
    hashes = rows.select(pl.struct(key).hash()).to_series()
    ordered = np.sort(hashes.to_numpy())
    repeated = ordered[1:][ordered[1:] == ordered[:-1]]
    if not len(repeated):
        return rows
    suspects = hashes.is_in(pl.Series(repeated).implode()).arg_true()
    first = rows[suspects].select(pl.struct(key).is_first_distinct()).to_series()
    return _without_positions(rows, suspects.filter(~first))


def drop_stored(
    rows: pl.DataFrame, stored_keys: pl.DataFrame, key: tuple[str, ...]
) -> pl.DataFrame:
    """Rows whose key is not in `stored_keys`, in their order."""
    hashes = rows.select(pl.struct(key).hash()).to_series()
    stored_hashes = stored_keys.select(pl.struct(key).hash()).to_series()
    suspects = hashes.is_in(stored_hashes.implode()).arg_true()
    if suspects.is_empty():
        return rows
    duplicates = (
        rows[suspects]
        .with_columns(suspects.alias("_position"))
        .join(stored_keys, on=key, how="semi", nulls_equal=True)
    )
    return _without_positions(rows, duplicates["_position"])


def _without_positions(rows: pl.DataFrame, positions: pl.Series) -> pl.DataFrame:
    keep = np.ones(rows.height, bool)
    keep[positions.to_numpy()] = False
    return rows.filter(pl.Series(keep))
