"""The gateway's secret: it signs request ids, and makes the pseudonyms of users.

It is KREISLAUF_GATEWAY_SECRET or, where that is not set, a file of the home, which whoever needs it
first creates. No message has it.
"""

import hmac
import secrets
from pathlib import Path

from kreislauf import private_file
from kreislauf.settings import Settings

MIN_CHARACTERS = 32
"""Minimum length of a secret."""


class SecretError(ValueError):
    """The secret cannot be read, or is too short. The message says what to do."""


def key(settings: Settings, purpose: str) -> bytes:
    """The key for one purpose: whoever has it learns neither the secret nor another key.

    Raises SecretError.
    """
    source = "KREISLAUF_GATEWAY_SECRET"
    secret = settings.gateway_secret.get_secret_value()
    if not secret:
        source = str(settings.home / "gateway" / "secret")
        secret = _read(Path(source))
    if len(secret) < MIN_CHARACTERS:
        raise SecretError(
            f"The secret in {source} has {len(secret)} characters, and needs {MIN_CHARACTERS} at "
            "least. `openssl rand -hex 32` makes one."
        )
    return hmac.digest(secret.encode(), purpose.encode(), "sha256")


def _read(path: Path) -> str:
    """What the file holds; it is created if it is not there."""
    try:
        return private_file.kept(path, secrets.token_hex(32)).strip()
    except PermissionError as error:
        raise SecretError(
            f"{path} can be read by its owner only. Run as the same user, or set "
            "KREISLAUF_GATEWAY_SECRET for the gateway and the worker."
        ) from error
