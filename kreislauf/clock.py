"""Times as the data has them: milliseconds since 1970 UTC."""

from datetime import UTC, datetime

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS


def date(time: int) -> str:
    """ms since 1970 as a date, UTC."""
    return f"{datetime.fromtimestamp(time / 1000, UTC):%Y-%m-%d}"


def when(time: int) -> str:
    """ms since 1970 as a date and time, UTC."""
    return f"{datetime.fromtimestamp(time / 1000, UTC):%Y-%m-%d %H:%M}"


def span(length: int) -> str:
    """A length of time (ms) in its two largest units, such as `1 h 5 min`; seconds do not count."""
    parts = {
        "d": length // DAY_MS,
        "h": length % DAY_MS // HOUR_MS,
        "min": length % HOUR_MS // MINUTE_MS,
    }
    words = [f"{number} {unit}" for unit, number in parts.items() if number]
    if parts["d"]:
        words = [word for word in words if not word.endswith("min")]
    return " ".join(words) or "0 min"


def in_utc(time: datetime) -> datetime:
    """A time; one without a time zone is in UTC."""
    if time.tzinfo is None:
        return time.replace(tzinfo=UTC)
    return time


def milliseconds(time: datetime) -> int:
    """A time as ms since 1970 UTC."""
    return round(in_utc(time).timestamp() * 1000)
