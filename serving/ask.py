"""Questions to exact versions in Triton, with a deadline, from an event loop."""

from typing import Any

import numpy as np

from kreislauf.release import wire
from models.spec import Tensors

RECONNECT_MS = 500
"""Longest pause between two tries to reach a Triton that is gone.

gRPC's own pause grows to two minutes.
"""


PROBE_SECONDS = 5.0
"""Longest wait for the word whether a version is resident."""
LOAD_SECONDS = 120.0
"""Longest wait for a load."""


class NotResident(RuntimeError):
    """Triton answers, but not as this version: another release may be in force."""


class NoAnswer(RuntimeError):
    """Triton cannot be reached, or failed."""


class TooLate(NoAnswer):
    """No answer before the deadline."""


class Triton:
    """One gRPC channel for all questions of a gateway at once.

    It is made and used inside an event loop.
    """

    def __init__(self, url: str):
        from tritonclient.grpc.aio import InferenceServerClient

        backoff = [
            (f"grpc.{name}_reconnect_backoff_ms", RECONNECT_MS)
            for name in ("initial", "min", "max")
        ]
        self.url = url
        self._client = InferenceServerClient(
            url, channel_args=[*backoff, ("grpc.max_receive_message_length", -1)]
        )

    async def ask(self, model: str, version: int, inputs: Tensors, seconds: float) -> Tensors:
        """Answers of exactly this version, by output name.

        Raises NotResident, TooLate or NoAnswer; NaN and infinity are no answers.
        """
        from tritonclient.utils import InferenceServerException

        if seconds <= 0:
            raise TooLate("no time is left to ask")
        tensors = wire.encode(inputs)
        try:
            result = await self._client.infer(model, tensors, str(version), client_timeout=seconds)
            outputs = wire.decode(result)
        except InferenceServerException as error:
            raise _exception_class(error)(
                f"Triton at {self.url}, {model} version {version}: {error.message()}"
            ) from error
        except ValueError as error:
            raise NoAnswer(f"{model} version {version}: {error}") from error
        for name, values in outputs.items():
            if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
                raise NoAnswer(f"{model} version {version}: output {name} holds NaN or infinity")
        return outputs

    async def has(self, model: str, version: int) -> bool:
        """Whether exactly this version is resident. Raises NoAnswer."""
        from tritonclient.utils import InferenceServerException

        try:
            return await self._client.is_model_ready(
                model, str(version), client_timeout=PROBE_SECONDS
            )
        except InferenceServerException as error:
            raise NoAnswer(f"Triton at {self.url}: {error.message()}") from error

    async def load(self, model: str) -> None:
        """Let Triton load what its repository says. Raises NoAnswer with Triton's words."""
        from tritonclient.utils import InferenceServerException

        try:
            await self._client.load_model(model, client_timeout=LOAD_SECONDS)
        except InferenceServerException as error:
            raise NoAnswer(f"Triton at {self.url}: {error.message()}") from error

    async def close(self) -> None:
        """End the channel."""
        await self._client.close()


def _exception_class(error: Any) -> type[RuntimeError]:
    """The exception for an error of Triton's client."""
    status = str(error.status())
    if "DEADLINE_EXCEEDED" in status:
        return TooLate
    # An unknown version is NOT_FOUND. A version that is being unloaded is UNAVAILABLE, as is a
    # Triton that is gone.
    if "NOT_FOUND" in status or "not at ready state" in str(error.message()):
        return NotResident
    return NoAnswer
