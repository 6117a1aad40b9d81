"""Requests: JSON to the results of a query."""

import math
from typing import Any

from models.fields import LONGEST_ID
from models.search_ranker.features import NO_CATEGORY, Candidate
from models.search_ranker.schema import CATEGORIES, FEATURES, LARGEST, RESULTS


def candidates(i: int, request: Any) -> list[Candidate]:
    """The results of request `i`. Raises ValueError that says what is wrong, and where."""
    listed = None
    if isinstance(request, dict):
        listed = request.get("results")
    if not isinstance(listed, list):
        raise ValueError(
            f'Request {i}: "results" must be a list. '
            'Send {"results": [{"item": "SKU-1", "features": [12.5, null]}]}.'
        )
    if len(listed) > RESULTS:
        raise ValueError(f"Request {i}: it has {len(listed)} results. Send {RESULTS} at most.")
    results = [_candidate(f"Request {i}: results[{j}]", result) for j, result in enumerate(listed)]
    ids = [result.item for result in results]
    if len(set(ids)) < len(ids):
        twice = next(item for item in ids if ids.count(item) > 1)
        raise ValueError(f"Request {i}: item {twice!r} is there twice. Send each item once.")
    return results


def as_id(value: Any) -> str | None:
    """An item's id as text, a number as its digits; None for what is no id."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    if isinstance(value, int) and abs(value) >= 10**LONGEST_ID:
        return None
    word = str(value)
    return word if 0 < len(word) <= LONGEST_ID else None


def _candidate(field: str, result: Any) -> Candidate:
    """One result, which errors call `field`."""
    if not isinstance(result, dict):
        result = {}
    item = as_id(result.get("item"))
    if item is None:
        raise ValueError(
            f'{field}["item"] is {result.get("item")!r:.300}. Send an id: a whole number, or text '
            f"of 1 to {LONGEST_ID} characters."
        )
    values = result.get("features")
    if not isinstance(values, list):
        raise ValueError(f'{field}["features"] is {values!r:.300}. Send a list of numbers.')
    if len(values) > FEATURES:
        raise ValueError(f"{field} has {len(values)} features. Send {FEATURES} at most.")
    numbers = [_number(f'{field}["features"][{k}]', value) for k, value in enumerate(values)]
    return Candidate(item, numbers, _categories(field, result.get("categories")))


def _categories(field: str, values: Any) -> list[str]:
    """The categories of the result that errors call `field`; none if there is no list."""
    if values is None:
        return []
    if not isinstance(values, list):
        raise ValueError(f'{field}["categories"] is {values!r:.300}. Send a list of texts.')
    if len(values) > CATEGORIES:
        raise ValueError(f"{field} has {len(values)} categories. Send {CATEGORIES} at most.")
    return [_category(f'{field}["categories"][{k}]', value) for k, value in enumerate(values)]


def _category(field: str, value: Any) -> str:
    """One category, `NO_CATEGORY` for null, which errors call `field`."""
    if value is None:
        return NO_CATEGORY
    word = as_id(value)
    if word is None:
        raise ValueError(
            f"{field} is {value!r:.300}. Send text of 1 to {LONGEST_ID} characters, a whole "
            "number, or null."
        )
    return word


def _number(field: str, value: Any) -> float:
    """One feature, NaN for null, which errors call `field`."""
    if value is None:
        return math.nan
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not -LARGEST <= value <= LARGEST:
        raise ValueError(f"{field} is {value!r:.300}. Send a number up to 1e30, or null.")
    return float(value)
