"""Training parameters of the recommender."""

from typing import Annotated

from pydantic import Field

from models import params
from models.search import Search


class Params(params.Params):
    """Training parameters."""

    dim: int = Field(default=64, ge=4, multiple_of=2, description="Length of an article's vector.")
    epochs: int = Field(
        default=2, ge=1, description="Most passes over the older sessions when there is no parent."
    )
    block_epochs: int = Field(
        default=1, ge=1, description="Passes over each block of the newest sessions."
    )
    batch_size: int = Field(
        default=128, ge=2, description="Sessions in a step of the encoder, over all processes."
    )
    lr: Annotated[float, Search(5e-4, 5e-3, log=True)] = Field(
        default=2e-3, gt=0, description="Highest learning rate of the encoder; it falls to zero."
    )
    block_lr: Annotated[float, Search(2e-4, 5e-3, log=True)] = Field(
        default=1e-3, gt=0, description="Highest learning rate of the encoder in a block."
    )
    dropout: Annotated[float, Search(0.1, 0.6)] = Field(
        default=0.4, ge=0, lt=1, description="Share of the encoder's numbers that a step hides."
    )
    most_compared: int = Field(
        default=1_500,
        ge=1,
        description="Articles in the softmax that are drawn beside those of the batch.",
    )
    ranker_epochs: int = Field(default=3, ge=1, description="Most passes of the ranker.")
    ranker_batch_size: int = Field(
        default=128, ge=2, description="Prefixes in a step of the ranker."
    )
    ranker_lr: Annotated[float, Search(5e-4, 1e-2, log=True)] = Field(
        default=4e-3, gt=0, description="Highest learning rate of the ranker."
    )
    cart_weight: float = Field(
        default=1.0, ge=0, description="Worth of predicting a cart; a click is worth 1."
    )
    order_weight: float = Field(
        default=1.0, ge=0, description="Worth of predicting an order; a click is worth 1."
    )
    seed: int = Field(
        default=0, ge=0, description="Same rows, parameters, parent and processes: same weights."
    )

    @classmethod
    def small(cls) -> "Params":
        """Parameters for shops of some thousand sessions; a training takes about 15 s."""
        return cls(dim=32, epochs=1, batch_size=256, most_compared=300, ranker_epochs=1)

    @classmethod
    def tiny(cls) -> "Params":
        """Parameters of a training that takes seconds on a few hundred sessions, for tests."""
        return cls(dim=16, epochs=2, batch_size=32, ranker_epochs=1)
