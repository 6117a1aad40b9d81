"""Training parameters of the support answers."""

from typing import Annotated

from pydantic import Field

from models import params
from models.search import Search


class Params(params.Params):
    """Training parameters."""

    max_error: float = Field(
        default=0.04,
        gt=0,
        lt=1,
        description="Share of the given answers that may be wrong; it decides what is handed over.",
    )
    held_out: float = Field(
        default=0.15,
        gt=0,
        lt=0.5,
        description="Share of the questions, the newest, that choose what is handed over.",
    )
    buckets: int = Field(
        default=2**16, ge=2, description="Rows of the table that n-grams are hashed to."
    )
    dim: int = Field(default=128, ge=1, description="Length of an n-gram's vector in a member.")
    members: int = Field(default=4, ge=1, description="Networks whose answers are averaged.")
    epochs: int = Field(default=15, ge=1, description="Passes over the questions without a parent.")
    warm_epochs: int = Field(default=5, ge=1, description="Passes when there is a parent.")
    batch_size: int = Field(default=64, ge=1, description="Questions in a step.")
    lr: Annotated[float, Search(0.01, 0.2, log=True)] = Field(
        default=0.05, gt=0, description="Learning rate of the first step; it falls to zero."
    )
    hidden_ngrams: Annotated[float, Search(0.1, 0.7)] = Field(
        default=0.5, ge=0, lt=1, description="Share of a question's n-grams that a step hides."
    )
    dropout: Annotated[float, Search(0.1, 0.7)] = Field(
        default=0.25, ge=0, lt=1, description="Share of a network's numbers that a step hides."
    )
    smoothing: float = Field(
        default=0.1, ge=0, lt=1, description="Probability that is spread over all intents."
    )
    seed: int = Field(
        default=0, ge=0, description="Same rows, parameters and parent: same weights."
    )

    @classmethod
    def small(cls) -> "Params":
        """Parameters for shops of some thousand questions; a training takes about 15 s."""
        return cls(buckets=2**14, dim=64, members=1)

    @classmethod
    def tiny(cls) -> "Params":
        """Parameters of a training that takes seconds on a few hundred questions, for tests."""
        return cls(buckets=2**10, dim=16, members=2, epochs=3, warm_epochs=2, lr=0.1)
