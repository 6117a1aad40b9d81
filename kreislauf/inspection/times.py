"""Ways to read a column as times."""

import time
from typing import NamedTuple

import polars as pl

from kreislauf.clock import DAY_MS
from kreislauf.exposures import EARLIEST
from models import conversion
from models.mapping_column import ISO, UNIT_MS, Column

DATES = ("%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y", "%Y/%m/%d", "%Y.%m.%d")
CLOCKS = ("", " %H:%M", " %H:%M:%S", " %H:%M:%S%.f", " %I:%M %p", " %I:%M:%S %p")
FORMATS = (
    *(date + clock for date in DATES for clock in CLOCKS),
    "%d.%m.%y %H:%M",
    "%d/%m/%y %H:%M",
    "%m/%d/%y %H:%M",
    "%Y%m%d%H%M%S",
    "%Y%m%d",
    "%d %b %Y %H:%M:%S",
    "%b %d, %Y %H:%M:%S",
    "%b %d, %Y %I:%M:%S %p",
    "%a, %d %b %Y %H:%M:%S %z",
    "%d/%b/%Y:%H:%M:%S %z",
)
"""Formats that are tried, but for ISO."""
LIKE_A_TIME = r"^\d{8}(\d{6})?$|\d\D+\d|[A-Za-z]{3}.*\d"
MIN_SHARE = 0.5
"""Least share of the values that a reading has to convert."""
SURE_SHARE = 0.95
"""Share of the values from which a reading is sure, if none converts more."""
MIN_RIVAL_SHARE = 0.05
"""Least share of a reading that is named beside one that is not sure."""


class TimeReading(NamedTuple):
    """One way to read a column as times."""

    unit: str | None
    format: str | None
    share: float
    """Of the values, those that become times from 2000 until tomorrow."""
    zoneless: str | None
    """A value of these that does not say its time zone; None if all do."""
    times: pl.Series
    """The values in ms, with UTC for a zone that is missing; null where they are no times."""

    @property
    def lacks_zone(self) -> bool:
        """Whether some of these values do not say their time zone."""
        return self.zoneless is not None

    @property
    def name(self) -> str:
        """Unit or format."""
        return self.unit or self.format or ""


def readings(values: pl.Series, is_local: bool = False) -> list[TimeReading]:
    """The ways that fit best, best first; none if none fits half of the values.

    `values` have no nulls. `is_local` says of times that are stored as such that they have no
    zone. Several are given if they convert as many values, or if none converts nearly all.
    """
    if values.is_empty():
        return []
    if isinstance(values.dtype, pl.Datetime | pl.Date):
        candidates = [_reading(values, format=ISO)]
        if is_local:
            candidates = [_without_zone(candidates[0], conversion.text(values))]
    else:
        candidates = [*_of_numbers(values), *_of_text(values)]
    shares = {c.format: c.share for c in candidates}
    # With fractions of a second is another reading only where there are some.
    distinct = [
        c
        for c in candidates
        if shares.get((c.format or "").removesuffix("%.f")) != c.share
        or not (c.format or "").endswith("%.f")
    ]
    fitting = sorted((c for c in distinct if c.share > 0), key=lambda c: -c.share)
    if not fitting or fitting[0].share < MIN_SHARE:
        return []
    best = fitting[0].share
    if best < SURE_SHARE:
        return [c for c in fitting if c.share == best or c.share > MIN_RIVAL_SHARE]
    return [c for c in fitting if c.share == best]


def _of_numbers(values: pl.Series) -> list[TimeReading]:
    """Readings of numbers by each unit."""
    if values.dtype == pl.String:
        # Text with a unit is not read: a replay reads ISO there, too.
        is_number = values.str.strip_chars().str.contains(conversion.NUMBER)
        values = pl.select(pl.when(is_number).then(values)).to_series()
    return [_reading(values, unit=unit) for unit in UNIT_MS]


def _of_text(values: pl.Series) -> list[TimeReading]:
    """Readings of text, or of whole numbers such as 20220829, by ISO and by formats."""
    texts = conversion.text(values)
    if not texts.str.contains(LIKE_A_TIME).any():
        return []
    absolute = _milliseconds(texts, Column.model_validate({"from": "t", "format": ISO}))
    iso = _reading(texts, format=ISO)
    candidates = [_without_zone(iso, texts.filter(iso.times.is_not_null() & absolute.is_null()))]
    if iso.share < SURE_SHARE:
        of_formats = [_reading(texts, format=pattern) for pattern in FORMATS]
        candidates += [
            reading
            if "%z" in (reading.format or "")
            else _without_zone(reading, texts.filter(reading.times.is_not_null()))
            for reading in of_formats
        ]
    return candidates


def _without_zone(reading: TimeReading, values: pl.Series) -> TimeReading:
    """The reading, whose `values` do not say their time zone."""
    return reading._replace(zoneless=next(iter(values), None))


def _reading(values: pl.Series, unit: str | None = None, format: str | None = None) -> TimeReading:
    zone = "UTC" if format and "%z" not in format else None
    column = Column.model_validate({"from": "t", "unit": unit, "format": format, "zone": zone})
    times = _milliseconds(values, column)
    return TimeReading(unit, format, times.count() / max(1, len(times)), None, times)


def _milliseconds(values: pl.Series, column: Column) -> pl.Series:
    """Times in ms; null where they do not convert, or lie before 2000 or after tomorrow."""
    times = conversion.milliseconds(values, column)
    tomorrow = int(time.time() * 1000) + DAY_MS
    is_likely = times.is_between(EARLIEST, tomorrow)
    return times.to_frame("t").select(pl.when(is_likely).then(pl.col("t"))).to_series()


def as_text(time_ms: int) -> str:
    """A time in ms as text, UTC."""
    return pl.Series([time_ms]).cast(pl.Datetime("ms")).dt.strftime("%Y-%m-%d %H:%M:%S")[0]
