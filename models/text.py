"""Text in arrays and tensors.

NumPy has text as objects, of str or of UTF-8 bytes, and with a fixed width. An ONNX file takes and
gives str objects, Triton UTF-8. Here all of them become one kind: arrays of str objects. A fixed
width cannot hold zeros at the end of a text, which NumPy takes for padding.
"""

import numpy as np
import polars as pl

KINDS = "OSTU"
"""Kinds of NumPy's dtypes that may hold text: objects, bytes and str of any or a fixed width."""


def is_text(array: np.ndarray) -> bool:
    """Whether the values are text; numbers are not, and arrays of other objects pass for text."""
    return array.dtype.kind in KINDS


def as_objects(array: np.ndarray) -> np.ndarray:
    """The same text, shape kept, as str objects; an array of numbers is returned as it is.

    Raises ValueError for objects that are no text, and for bytes that are not UTF-8.
    """
    if not is_text(array):
        return array
    words = [_decode(value) for value in array.ravel().tolist()]
    return np.array(words, object).reshape(array.shape)


def unify(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """`as_objects` of every tensor. The ValueError names the one that is wrong."""
    unified = {}
    for name, array in tensors.items():
        try:
            unified[name] = as_objects(array)
        except ValueError as error:
            raise ValueError(f"Tensor {name!r}: {error}") from error
    return unified


def column(series: pl.Series) -> np.ndarray:
    """The values of a column without nulls, (n,): numbers as they are, text as str objects, of
    which equal ones are one object."""
    if series.dtype != pl.String:
        return series.to_numpy()
    words = series.unique().sort()
    numbers = series.cast(pl.Enum(words)).to_physical().to_numpy()
    return words.to_numpy()[numbers]


def distinct(array: np.ndarray) -> np.ndarray:
    """The different values of an array, ascending, (m,); text in the order of its UTF-8."""
    if not is_text(array):
        return np.unique(array)
    return _series(array).unique().sort().to_numpy()


def positions(array: np.ndarray, words: np.ndarray, default: int) -> np.ndarray:
    """Position of each text in `words`, which are distinct, or else `default`; int64, shape
    kept."""
    numbers = _series(array).cast(pl.Enum(pl.Series(words, dtype=pl.String)), strict=False)
    by_value = numbers.to_physical().cast(pl.Int64).fill_null(default)
    return by_value.to_numpy(writable=True).reshape(array.shape)


def numbered(array: np.ndarray) -> np.ndarray:
    """The array, or, of text, the position of each among its `distinct` texts: shape kept."""
    if not is_text(array):
        return array
    return positions(array, distinct(array), -1)


def is_among(array: np.ndarray, values: pl.Series) -> np.ndarray:
    """Whether each of an array (n,), of numbers or text, is one of `values`: bool (n,)."""
    if not is_text(array):
        return np.isin(array, values.to_numpy())
    return _series(array).is_in(values.implode()).to_numpy()


def to_bytes(array: np.ndarray) -> bytes:
    """The values in C order: numbers as NumPy stores them, text as Triton does.

    Each text is its UTF-8 after the number of its bytes, 4 bytes, little-endian.
    """
    if not is_text(array):
        return np.ascontiguousarray(array).tobytes()
    words = [word.encode() for word in as_objects(array).ravel()]
    return b"".join(len(word).to_bytes(4, "little") + word for word in words)


def _series(array: np.ndarray) -> pl.Series:
    """Text of any shape as a column."""
    return pl.Series(as_objects(array).ravel().tolist(), dtype=pl.String)


def _decode(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, str):
        return value
    raise ValueError(
        f"an array of objects holds text, and {value!r:.100} is a {type(value).__name__}: give "
        "numbers a numeric dtype, and nothing a word of its own."
    )
