"""Times as the data has them: milliseconds since 1970 UTC."""

from datetime import UTC, datetime

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


def date(time: int) -> str:
    """ms since 1970 as a date, UTC."""
    return f"{datetime.fromtimestamp(time / 1000, UTC):%Y-%m-%d}"


def when(time: int) -> str:
    """ms since 1970 as a date and time, UTC."""
    return f"{datetime.fromtimestamp(time / 1000, UTC):%Y-%m-%d %H:%M}"
