"""The answer to one request, and who gave it."""

from dataclasses import dataclass

from kreislauf.exposures import Variant
from serving.split import Assignment


@dataclass
class Answer:
    """The answer of a version, or the fallback answer."""

    assignment: Assignment
    """Who should have answered."""
    answer: dict
    reason: str | None = None
    """Why it is the fallback: `deadline` or `unavailable`."""

    @property
    def variant(self) -> Variant:
        """Who answered."""
        if self.reason:
            return "fallback"
        return self.assignment.arm

    @property
    def version(self) -> int:
        """The version that answered; the fallback counts as the champion's."""
        if self.reason:
            return self.assignment.release.champion
        return self.assignment.version


def overlap(items: list, challenger_items: list) -> float:
    """Share of `items` that are in `challenger_items`; of no items, 1 if both are empty."""
    if not items:
        return float(not challenger_items)
    return sum(item in challenger_items for item in items) / len(items)
