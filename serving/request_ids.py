"""Ids of answers: they say who answered, and are signed, so that feedback cannot be made up."""

import hmac
import uuid
from typing import Any, cast

from kreislauf.exposures import Variant
from serving.parsing import Refusal

PURPOSE = "request ids"
"""Purpose of the key that signs them."""


def make(key: bytes, model: str, variant: Variant, version: int) -> str:
    """A new id, `<random>.<variant>.<version>.<signature>`."""
    content = f"{uuid.uuid4().hex}.{variant}.{version}"
    return f"{content}.{_signature(key, model, content)}"


def parse(key: bytes, model: str, request_id: Any) -> tuple[Variant, int]:
    """Variant and version that gave the model's answer with this id.

    Raises Refusal for ids that were not made with this key, or for another model.
    """
    if isinstance(request_id, str):
        content, _, signature = request_id.rpartition(".")
        if hmac.compare_digest(signature.encode(), _signature(key, model, content).encode()):
            _, variant, version = content.split(".")
            return cast(Variant, variant), int(version)
    raise Refusal(
        422,
        f"No answer of {model} from this gateway has this request_id: send it back as it came. "
        "Gateways that share a service need the same KREISLAUF_GATEWAY_SECRET.",
    )


def _signature(key: bytes, model: str, content: str) -> str:
    """128 bits in hexadecimal digits."""
    return hmac.digest(key, f"{model}\n{content}".encode(), "sha256")[:16].hex()
