"""Waiting for what another thread or process does."""

import time
from collections.abc import Callable

PAUSE = 0.1
"""Seconds between two tries."""


def until(
    condition: Callable[[], object], seconds: float = 10, expectation: str = "it comes about"
) -> None:
    """Wait until the condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{expectation}: not within {seconds} s"
        time.sleep(PAUSE)
