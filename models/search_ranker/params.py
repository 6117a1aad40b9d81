"""Training parameters of the ranker."""

from typing import Annotated

from pydantic import Field

from models import params
from models.search import Search


class Params(params.Params):
    """Training parameters."""

    width: int = Field(default=32, ge=4, multiple_of=4, description="Numbers in a hidden layer.")
    folds: int = Field(
        default=5,
        ge=2,
        description="Parts of the queries; a network learns from all but one, which judges it.",
    )
    networks: int = Field(
        default=3,
        ge=1,
        description="Networks for each part; the scores of all are averaged in one file.",
    )
    steps: Annotated[int, Search(50, 2_000, log=True)] = Field(
        default=100, ge=1, description="Steps of the training, each over `batch_size` lists."
    )
    batch_size: int = Field(
        default=32, ge=2, description="Lists in a step of the training, over all processes."
    )
    lr: Annotated[float, Search(3e-4, 1e-2, log=True)] = Field(
        default=3e-3, gt=0, description="Highest learning rate; it falls to zero."
    )
    decay: Annotated[float, Search(1e-2, 1.0, log=True)] = Field(
        default=0.3, ge=0, description="Weight decay."
    )
    dropout: Annotated[float, Search(0.0, 0.6)] = Field(
        default=0.3, ge=0, lt=1, description="Share of the hidden numbers that a step hides."
    )
    feature_dropout: Annotated[float, Search(0.0, 0.8)] = Field(
        default=0.3, ge=0, lt=1, description="Share of the features that a step hides."
    )
    share: Annotated[float, Search(0.3, 1.0)] = Field(
        default=1.0, gt=0, le=1, description="Share of the features that a network looks at."
    )
    noise: Annotated[float, Search(0.0, 0.5)] = Field(
        default=0.1, ge=0, description="Deviation of the noise on features, of deviation 1."
    )
    seed: int = Field(
        default=0, ge=0, description="Same rows, parameters, parent and processes: same weights."
    )

    @classmethod
    def small(cls) -> "Params":
        """Parameters for shops of some thousand searches; a training takes about 15 s."""
        return cls(width=16, networks=1, lr=1e-2, feature_dropout=0.1)

    @classmethod
    def tiny(cls) -> "Params":
        """Parameters of a training that takes seconds on a few hundred searches, for tests."""
        return cls(
            width=8, folds=2, networks=1, steps=50, lr=2e-2, feature_dropout=0.0, dropout=0.1
        )
