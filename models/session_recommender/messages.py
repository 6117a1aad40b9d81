"""Requests and answers, as the gateway's API describes them."""

from typing import Literal

from pydantic import BaseModel, Field

from models.session_recommender.schema import END_MS, FIRST_MS


class SessionEvent(BaseModel):
    """What a visitor did with an article."""

    aid: int = Field(ge=0, lt=2**63, description="Article id.", examples=[1517085])
    ts: int | None = Field(
        None,
        ge=FIRST_MS,
        lt=END_MS,
        description="Time in ms since 1970 UTC, if it is known.",
        examples=[1659304800025],
    )
    type: Literal["clicks", "carts", "orders"] = "clicks"


class Session(BaseModel):
    """A session so far."""

    events: list[SessionEvent] = Field(
        description="Oldest first, or in any order if each has a time. The newest 20 count."
    )


class NextArticles(BaseModel):
    """The articles most likely next."""

    article_ids: list[int] = Field(description="Best first.")
    scores: list[float] = Field(
        description="In the same order; of use only to compare answers of one version."
    )
