"""What stands before every request: the token, and the number of requests at a time."""

import hmac
from typing import Any

from serving import description
from serving.messages import problem

IN_FLIGHT = 256
"""Maximum requests at a time; more are asked to come back later."""


class Guard:
    """Checks the token, and lets in no more requests at a time than there is memory for."""

    def __init__(self, app: Any, token: str):
        self.app = app
        self.token = token
        self.in_flight = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """The application behind the guard, as ASGI calls it."""
        if scope["type"] != "http" or scope["path"] in description.OPEN:
            return await self.app(scope, receive, send)
        if not self.has_token(scope):
            response = problem(401, "Send the gateway's token: Authorization: Bearer ...")
            return await response(scope, receive, send)
        if self.in_flight >= IN_FLIGHT:
            response = problem(503, "Too many requests at a time. Come back in a second.")
            return await response(scope, receive, send)
        self.in_flight += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.in_flight -= 1

    def has_token(self, scope: Any) -> bool:
        """Whether the request has the token, or none is wanted."""
        path = scope["path"]
        if not self.token or path.startswith(description.PAGES):
            return True
        header = dict(scope["headers"]).get(b"authorization", b"")
        return hmac.compare_digest(header, f"Bearer {self.token}".encode())
