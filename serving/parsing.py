"""What the body of a request means: its JSON and its user."""

import msgspec

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
