"""Training parameters of a model type that has none, and what those of all have in common."""

from typing import Self

from pydantic import BaseModel


class Params(BaseModel, extra="forbid"):
    """Training parameters. A subclass adds fields, each with a default and a description."""

    @classmethod
    def small(cls) -> Self:
        """Parameters for small shops."""
        return cls()

    @classmethod
    def tiny(cls) -> Self:
        """Parameters of a training that takes seconds, for tests."""
        return cls.small()
