"""What stands before every request: the token, and the number of requests at a time."""

import base64
import binascii
import hmac
from typing import Any

from serving import description
from serving.messages import problem

IN_FLIGHT = 256
"""Maximum requests at a time; more are asked to come back later."""

CHALLENGE = {"WWW-Authenticate": 'Basic realm="The password is the token", charset="UTF-8"'}
"""Makes a browser ask a person for a name and a password."""
TOKEN_WANTED = "Send the gateway's token: Authorization: Bearer ..."
PASSWORD_WANTED = f"{TOKEN_WANTED} In a browser, give any name, and the token as password."


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
            response = problem(401, TOKEN_WANTED)
            if is_for_people(scope):
                response = problem(401, PASSWORD_WANTED)
                response.headers.update(CHALLENGE)
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
        if is_for_people(scope) and hmac.compare_digest(password(header), self.token.encode()):
            return True
        return hmac.compare_digest(header, f"Bearer {self.token}".encode())


def is_for_people(scope: Any) -> bool:
    """Whether a browser may show what is asked for: pages that change nothing."""
    return scope["path"].startswith(description.LIFECYCLES)


def password(header: bytes) -> bytes:
    """The password of HTTP Basic in an Authorization header; empty if there is none."""
    scheme, _, credentials = header.partition(b" ")
    if scheme.lower() != b"basic":
        return b""
    try:
        decoded = base64.b64decode(credentials, validate=True)
    except binascii.Error:
        return b""
    return decoded.partition(b":")[2]
