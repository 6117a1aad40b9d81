"""What the body of a request means: its JSON, its user, and the answer that feedback is about."""

import itertools
from collections.abc import Collection
from typing import Any

import msgspec

from kreislauf.exposures import VARIANTS, Variant

USER_CHARACTERS = 200
"""Maximum length of a user's name, and of the JSON of an item in a feedback."""


class Refusal(Exception):
    """A request that gets no answer: HTTP status and a sentence that says what to do."""

    def __init__(self, status: int, detail: str):
        super().__init__(detail)
        self.status = status
        self.detail = detail


def parse(body: bytes) -> dict:
    """The JSON object in a body. Raises Refusal."""
    try:
        content = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise Refusal(400, f"The body is no JSON: {str(error)[:200]}") from error
    if not isinstance(content, dict):
        raise Refusal(422, f"The body is a JSON {type(content).__name__}. Send an object.")
    return content


def pop_user(request: dict) -> str | None:
    """The user that the answer is for: `user`, which leaves the request, else its `session`.

    None if neither is there. Raises Refusal.
    """
    user = request.pop("user", None)
    if user is None:
        user = request.get("session")
    if user is None:
        return None
    is_name = isinstance(user, str | int) and not isinstance(user, bool)
    if not is_name or not 0 < len(str(user)) <= USER_CHARACTERS:
        raise Refusal(
            422, f"user must be an integer or a string of 1 to {USER_CHARACTERS} characters."
        )
    return str(user)


def make_request_id(unique: str, variant: Variant, version: int) -> str:
    """An id that tells who answered; `unique` has 32 characters."""
    return f"{unique}.{variant}.{version}"


def parse_request_id(request_id: Any, versions: Collection[int]) -> tuple[Variant, int]:
    """Variant and version that gave the answer with this id.

    `versions` are all that ever answered. Raises Refusal for ids that no answer had.
    """
    if isinstance(request_id, str):
        fields = request_id.split(".")
        if len(fields) == 3 and len(fields[0]) == 32:
            for variant, version in itertools.product(VARIANTS, versions):
                if fields[1:] == [variant, str(version)]:
                    return variant, version
    raise Refusal(422, "request_id is not one that an answer had: send it back as it came.")
