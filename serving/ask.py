"""Questions to exact versions in Triton, with a deadline, from an event loop."""

import re
import time
from collections.abc import Container
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
OTHER_INPUTS = re.compile(r"expected \d+ inputs but got \d+")
"""What Triton says to a request with more or fewer inputs than the version takes."""
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
        self._inputs: dict[tuple[str, str], Container[str]] = {}
        """Names of the inputs of versions that do not take all of their model type's."""
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
        try:
            outputs = await self._infer(model, version, inputs, seconds)
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

    async def _infer(self, model: str, version: int, inputs: Tensors, seconds: float) -> Tensors:
        """See `ask`. A version that takes other inputs than the last one did is asked again."""
        from tritonclient.utils import InferenceServerException

        began = time.perf_counter()
        number = str(version)
        names = self._inputs.get((model, number), inputs)
        tensors = wire.encode({name: inputs[name] for name in inputs if name in names})
        try:
            result = await self._client.infer(model, tensors, number, client_timeout=seconds)
        except InferenceServerException as error:
            if not OTHER_INPUTS.search(str(error.message())):
                raise
            metadata = await self._client.get_model_metadata(model, number, client_timeout=seconds)
            wanted = wire.wanted(metadata, inputs)
            self._inputs[model, number] = set(wanted)
            left = seconds - (time.perf_counter() - began)
            if left <= 0:
                raise TooLate("no time is left to ask again") from error
            tensors = wire.encode(wanted)
            result = await self._client.infer(model, tensors, number, client_timeout=left)
        return wire.decode(result)

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
