"""What a search found."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class TuningResult(BaseModel):
    """The best hyperparameters of a search, and how they compare with the defaults."""

    model_config = ConfigDict(frozen=True)

    model: str
    study: str
    params: dict[str, Any] = Field(
        description="Best parameters, those that differ from the defaults or were searched."
    )
    validation: float = Field(description="`TrainingResult.validation` with them.")
    default_validation: float = Field(
        description="`TrainingResult.validation` with the default parameters."
    )
    trials: dict[str, int] = Field(
        description="Attempts by their state: finished, pruned, failed, killed."
    )
    adopt: str = Field(
        description="The command that makes the best parameters the deployments' defaults."
    )
