"""When a window is judged: not at every look, but whenever enough of it is new.

Windows that overlap say nearly the same. Whoever compares each of them with a limit raises more
alarms than the limit stands for, and learns nothing from most of them.
"""

WINDOWS_PER_LENGTH = 12
"""Windows that are judged in the time that one of them is long."""


def window_end(watermark: int, length: int) -> int:
    """End (ms, inclusive) of the newest window of `length` ms that is judged when rows have come
    until `watermark` (ms, inclusive)."""
    step = length // WINDOWS_PER_LENGTH
    return (watermark + 1) // step * step - 1
