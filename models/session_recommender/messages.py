"""Requests and answers, as the gateway's API describes them."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from models.fields import END_MS, FIRST_MS, LONGEST_ID

Digits = Annotated[str, Field(pattern=r"^(0|[1-9][0-9]{0,18})$")]
Word = Annotated[str, Field(min_length=1, max_length=LONGEST_ID)]


class SessionEvent(BaseModel):
    """What a visitor did with an article."""

    aid: Annotated[int, Field(ge=0, lt=2**63)] | Digits = Field(
        description="Article id, as a number or as text.", examples=[1517085]
    )
    ts: int | None = Field(
        None,
        ge=FIRST_MS,
        lt=END_MS,
        description="Time in ms since 1970 UTC, if it is known.",
        examples=[1659304800025],
    )
    type: Literal["clicks", "carts", "orders"] = "clicks"


class SessionEventByText(SessionEvent):
    """What a visitor did with an article whose id is text."""

    aid: Word | int = Field(  # type: ignore[assignment]
        description="Article id.", examples=["SKU-1517085"]
    )


EVENTS = "Oldest first, or in any order if each has a time. The newest 20 count."


class Session(BaseModel):
    """A session so far."""

    events: list[SessionEvent] = Field(description=EVENTS)
    ids: Literal["number", "text"] | None = Field(
        None, description="How the answer writes ids; by default as the events have theirs."
    )


class SessionByText(Session):
    """A session so far, of articles whose ids are text."""

    events: list[SessionEventByText] = Field(description=EVENTS)  # type: ignore[assignment]


class NextArticles(BaseModel):
    """The articles most likely next."""

    article_ids: list[int] | list[str] = Field(description="Best first.")
    scores: list[float] = Field(
        description="In the same order; of use only to compare answers of one version."
    )


class NextArticlesByText(NextArticles):
    """The articles most likely next, whose ids are text."""

    article_ids: list[str | int] = Field(description="Best first.")  # type: ignore[assignment]
