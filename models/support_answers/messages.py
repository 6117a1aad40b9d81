"""Requests and answers, as the gateway's API describes them."""

from pydantic import BaseModel, Field

from models.support_answers.schema import LONGEST_TEXT


class CustomerQuestion(BaseModel):
    """What a customer asks."""

    text: str = Field(
        max_length=LONGEST_TEXT,
        description="As it was written; the first 64 words count.",
        examples=["Wo bleibt mein Päckchen?"],
    )


class SupportAnswer(BaseModel):
    """The known answer that fits best."""

    intent: str = Field(description="Name of the answer; for a person a first guess.")
    confidence: float = Field(description="Probability that it is right, 0 to 1.")
    hand_over: bool = Field(description="Whether a person should answer instead.")
