"""Choices that a proposed mapping leaves to a person."""

from collections.abc import Iterator
from typing import Any

from ruamel.yaml import YAML

CHOOSE = "CHOOSE"
"""What stands in a mapping where several readings fit, until somebody has chosen."""


def pending(text: str) -> list[str]:
    """Line and place of each choice in a YAML text that nobody has made yet, in its order.

    Raises YAMLError.
    """
    root = YAML(typ="safe").compose(text)
    return [f"line {line + 1}, `{'.'.join(place)}`" for line, place in _pending(root, ())]


def _pending(node: Any, place: tuple[str, ...]) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Number of the line, from 0, and place of each choice below a node."""
    if node is None:
        return
    if isinstance(node.value, str):
        if node.value == CHOOSE:
            yield node.start_mark.line, place
        return
    for number, child in enumerate(node.value):
        if isinstance(child, tuple):
            yield from _pending(child[1], (*place, str(child[0].value)))
        else:
            yield from _pending(child, (*place, str(number)))
