"""Bodies of requests and responses, as the description of the API shows them."""

from typing import Annotated, Any, Generic, Literal, TypeVar

from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from kreislauf.exposures import Kind, Variant
from serving.parsing import USER_CHARACTERS

AnswerType = TypeVar("AnswerType", bound=BaseModel)
Name = int | Annotated[str, Field(min_length=1, max_length=USER_CHARACTERS)] | None


class Asker(BaseModel):
    """Whom an answer is for; beside what the model type takes."""

    user: Name = Field(None, description="The user; by default the session.", examples=["anna"])
    session: Name = Field(None, description="The session.", examples=[7])


class Prediction(BaseModel, Generic[AnswerType]):
    """An answer, and who gave it."""

    request_id: str = Field(description="Send it back with the feedback.")
    model: str
    version: int = Field(
        description="Version in the registry; for a fallback, the champion that did not answer; 0 "
        "for a user who gets no model in a comparison."
    )
    variant: Variant
    answer: AnswerType


class Reaction(BaseModel, extra="forbid"):
    """What somebody did with an answer."""

    request_id: str = Field(description="The one that came with the answer.")
    model: str = Field(description="The model type that answered.")
    kind: Kind
    item: Any = Field(
        description="One of the items of the answer; as JSON it has at most "
        f"{USER_CHARACTERS} characters."
    )


class Problem(BaseModel):
    """The reason why there is no answer."""

    detail: str = Field(description="What was wrong, and what to do.")


class Health(BaseModel):
    """The process lives."""

    status: Literal["alive"]


class Readiness(BaseModel):
    """The gateway answers."""

    status: Literal["ready", "fallbacks only"]
    models: dict[str, str] = Field(
        {}, description="Why fallbacks alone are given for a model type, if they are."
    )


def problem(status: int, detail: str) -> JSONResponse:
    """An error as JSON; a 503 says when to come back."""
    response = JSONResponse({"detail": detail}, status)
    if status == 503:
        response.headers["Retry-After"] = "1"
    return response
