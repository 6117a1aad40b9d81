"""Text in tensors.

NumPy has text as objects, of str or of UTF-8 bytes, and with a fixed width. An ONNX file takes and
gives str objects, Triton UTF-8. Here all of them become one kind: arrays of str objects. A fixed
width cannot hold zeros at the end of a text, which NumPy takes for padding.
"""

import numpy as np

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


def to_bytes(array: np.ndarray) -> bytes:
    """The values in C order: numbers as NumPy stores them, text as Triton does.

    Each text is its UTF-8 after the number of its bytes, 4 bytes, little-endian.
    """
    if not is_text(array):
        return np.ascontiguousarray(array).tobytes()
    words = [word.encode() for word in as_objects(array).ravel()]
    return b"".join(len(word).to_bytes(4, "little") + word for word in words)


def _decode(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, str):
        return value
    raise ValueError(
        f"an array of objects holds text, and {value!r:.100} is a {type(value).__name__}: give "
        "numbers a numeric dtype, and nothing a word of its own."
    )
