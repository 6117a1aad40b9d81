"""Ids of articles in requests and answers: whole numbers, or text."""

from typing import Any, ClassVar, Protocol

import numpy as np

from models.fields import LONGEST_ID
from models.session_recommender.features import NO_ID, PADDING

IdType = type[int] | type[str] | None
"""How ids are written in JSON; None: nothing says so."""
ID_TYPES: dict[Any, IdType] = {"number": int, "text": str, None: None}
"""What a request may say of the ids in its answer."""


class Ids(Protocol):
    """What a model type has to know of its ids."""

    padding: ClassVar[int | str]
    dtype: ClassVar[np.dtype]
    """Of arrays that hold them."""
    words: ClassVar[str]
    """What an id is, for people."""

    def read(self, value: Any) -> int | str | None:
        """The id that a JSON value means; None if it means none."""

    def write(self, value: Any, id_type: IdType) -> int | str:
        """An id as JSON has it, as `id_type` if it can be; by default as it is."""


class WholeNumbers:
    """Ids that int64 holds, and not negative."""

    padding: ClassVar[int | str] = PADDING
    dtype: ClassVar[np.dtype] = np.dtype(np.int64)
    words: ClassVar[str] = "an integer from 0 to 2^63 - 1, as a number or as text"

    def read(self, value: Any) -> int | None:
        """See `Ids`. Text has to be the number as it is written without zeros before it."""
        if isinstance(value, str):
            value = _whole_number(value)
        if is_natural(value):
            return value
        return None

    def write(self, value: Any, id_type: IdType) -> int | str:
        """See `Ids`."""
        if id_type is str:
            return str(value)
        return value


class Words:
    """Ids that are text, or whole numbers of any size, which are kept as text."""

    padding: ClassVar[int | str] = NO_ID
    dtype: ClassVar[np.dtype] = np.dtype(object)
    words: ClassVar[str] = f"text of 1 to {LONGEST_ID} characters, or an integer"

    def read(self, value: Any) -> str | None:
        """See `Ids`."""
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if isinstance(value, str) and 0 < len(value) <= LONGEST_ID:
            return value
        return None

    def write(self, value: Any, id_type: IdType) -> int | str:
        """See `Ids`."""
        number = _whole_number(value)
        if id_type is int and number is not None:
            return number
        return value


def is_natural(value: Any) -> bool:
    """Whether a JSON value is an integer that int64 holds, and not negative."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _whole_number(text: str) -> int | None:
    """The integer that is written as this text; None if there is none."""
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdecimal()):
        return None
    number = int(text)
    return number if str(number) == text else None
