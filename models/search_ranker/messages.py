"""Requests and answers, as the gateway's API describes them."""

from typing import Annotated

from pydantic import BaseModel, Field

from models.fields import LONGEST_ID
from models.search_ranker.schema import CATEGORIES, FEATURES, LARGEST, RESULTS

Word = Annotated[str, Field(min_length=1, max_length=LONGEST_ID)]
Number = Annotated[float, Field(ge=-LARGEST, le=LARGEST)]


class Candidate(BaseModel):
    """A result that is to be put in order."""

    item: Word | int = Field(description="Id, as text or as a number.", examples=["SKU-1517085"])
    features: list[Number | None] = Field(
        max_length=FEATURES,
        description="Raw values in the order of the training; null where one is missing.",
        examples=[[12.5, None, 3]],
    )
    categories: list[Word | int | None] | None = Field(
        default=None,
        max_length=CATEGORIES,
        description="Raw values in the order of the training, text or numbers; null where one is "
        "missing.",
        examples=[["shoes", "brand-7", None]],
    )


class Results(BaseModel):
    """The results of a query, in any order."""

    results: list[Candidate] = Field(max_length=RESULTS, description="Ids are different.")


class Order(BaseModel):
    """The same results, the best one first."""

    items: list[str | int] = Field(description="Best first.")
    scores: list[float] = Field(
        description="In the same order; of use only to compare results of one answer."
    )
