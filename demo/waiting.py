"""Wait for what other processes do."""

import time
from collections.abc import Callable


def until(condition: Callable[[], object], seconds: float, expectation: str) -> None:
    """Wait for `seconds` at most. Raises TimeoutError with what did not happen."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{expectation}: not within {seconds:.0f} s")
        time.sleep(0.5)
