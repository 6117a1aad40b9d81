"""Files in OTTO's format, as large as wanted, shaped like the data that OTTO published.

OTTO's training data (https://github.com/otto-de/recsys-dataset) has 216.7 M events in 12.9 M
sessions of 28 days. Events per session: mean 16.8, quantiles 50/75/90/95 % 6/15/39/68, at least 2,
at most 500. Types: 89.8/7.8/2.4 % clicks/carts/orders. There are 1,855,603 articles; events per
article: mean 117, quantiles 50/95 % 20/398, at most 129,004.
"""

import io
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import NormalDist

import numpy as np
import polars as pl

from demo import raw_files
from kreislauf.clock import DAY_MS

FULL_EVENTS = 216_716_096
EVENTS_PER_SESSION = 17.1
"""Mean events of a generated session."""
CHUNK = 100_000
START = 1_659_304_800_000
DAYS = 28
ARTICLES = 1_855_603
POPULARITY_SD = 1.88
"""Standard deviation of the logarithm of an article's events.

It follows from their median of 20 and their mean of 117: sqrt(2 * log(117 / 20)).
"""
SENT_TWICE = 0.0005
"""Share of the events that repeat the one before.

OTTO published none; without any, nothing would test the deduplication.
"""
TYPES = ("clicks", "carts", "orders")
TYPE_SHARES = (0.898, 0.078, 0.024)


@dataclass
class Written:
    """The content of a generated file."""

    lines: int = 0
    events: int = 0
    """Number of events in the good lines."""
    distinct: int = 0
    """Number of events without repetitions: the rows that a load must keep."""
    bad: list[tuple[int, bytes]] = field(default_factory=list)
    """(line number from 1, bytes) of each bad line, in the order of the file."""


def generate(path: Path, sessions: int, seed: int = 0, bad_share: float = 0.0) -> Written:
    """Write a file of `sessions` lines, each a session, in the order of their first events.

    A share `bad_share` of the lines, at random places, is broken in one of the ways of `FAULTS`, in
    turn; all others are the same as without it. The same arguments make the same bytes. Raises
    ValueError if `sessions` or `bad_share` makes no sense.
    """
    if sessions < 1 or not 0 <= bad_share <= 1:
        raise ValueError(
            f"{sessions} sessions, {bad_share} of them bad: "
            "give at least 1, and a share from 0 to 1."
        )
    written = Written()
    with path.open("wb") as file:
        for first in range(0, sessions, CHUNK):
            n = min(CHUNK, sessions - first)
            starts = START + (first + np.arange(n)) * (DAYS * DAY_MS - 1_000) // sessions
            rows = _rows(np.random.default_rng((seed, first)), first, starts)
            bad = np.flatnonzero(np.random.default_rng((seed, first, 1)).random(n) < bad_share)
            file.write(_break(_lines(rows), bad, written))
            good = rows.filter(~pl.col("session").is_in(first + bad))
            written.lines += n
            written.events += good.height
            written.distinct += good.height - _repeated(good)
    return written


def _rows(rng: np.random.Generator, first: int, starts: np.ndarray) -> pl.DataFrame:
    """Events of the sessions from number `first` on; `starts` are ms since 1970 UTC."""
    lengths = np.clip(np.round(rng.lognormal(1.8, 1.45, len(starts))), 2, 500).astype(np.int64)
    n = lengths.sum()
    begins = np.r_[0, np.cumsum(lengths)[:-1]]
    # Visitors read for a minute and a half, or come back after days. An event in a hundred has the
    # time of the one before.
    gaps = np.where(
        rng.random(n) < 0.05, rng.exponential(2 * DAY_MS, n), rng.exponential(90_000, n)
    )
    gaps[rng.random(n) < 0.01] = 0
    gaps[begins] = 0
    passed = np.cumsum(gaps)
    passed -= np.repeat(passed[begins], lengths)
    most = passed[begins + lengths - 1]
    room = START + DAYS * DAY_MS - 1 - starts
    passed *= np.repeat(np.minimum(1, room / np.maximum(most, 1)), lengths)
    types = pl.Series(TYPES, dtype=pl.Enum(TYPES))
    rows = pl.DataFrame(
        {
            "session": np.repeat(first + np.arange(len(starts)), lengths),
            "aid": _articles(rng, n),
            "ts": np.repeat(starts, lengths) + passed.astype(np.int64),
            "type": types.gather(pl.Series(rng.choice(len(TYPES), n, p=TYPE_SHARES))),
        }
    )
    again = rng.random(n) < SENT_TWICE
    again[begins] = False
    return rows[np.arange(n) - again]


def _articles(rng: np.random.Generator, n: int) -> np.ndarray:
    """Draw article ids, int64 (n,), by a lognormal popularity.

    The log-popularity of a drawn article is normal with the variance as its mean.
    """
    grid = np.linspace(-8, 12, 2001)
    below = np.interp(rng.normal(POPULARITY_SD, 1, n), grid, [NormalDist().cdf(z) for z in grid])
    rank = np.minimum((below * ARTICLES).astype(np.int64), ARTICLES - 1)
    return rank * 2_654_435_761 % ARTICLES


def _repeated(rows: pl.DataFrame) -> int:
    """Number of rows that equal an earlier one. Only neighbours at the same time can."""
    tied = ((pl.col("ts").diff() == 0) & (pl.col("session").diff() == 0)).fill_null(False)
    neighbours = rows.filter(tied | tied.shift(-1, fill_value=False))
    return neighbours.height - neighbours.n_unique()


def _lines(rows: pl.DataFrame) -> bytes:
    """One JSON line for each session, as compact as in OTTO's files."""
    buffer = io.BytesIO()
    raw_files.sessions(rows).write_ndjson(buffer)
    return buffer.getvalue()


def _break(data: bytes, bad: np.ndarray, written: Written) -> bytes:
    """`data` with the lines at the positions `bad` broken, each noted in `written`."""
    if not len(bad):
        return data
    lines = data.split(b"\n")
    faults = list(FAULTS.values())
    for i in bad.tolist():
        fault = faults[len(written.bad) % len(faults)]
        lines[i] = fault(lines[i])
        written.bad.append((written.lines + i + 1, lines[i]))
    return b"\n".join(lines)


def _replace(pattern: bytes, by: bytes) -> Callable[[bytes], bytes]:
    """A function that replaces the first match."""
    return lambda line: re.sub(pattern, by, line, count=1)


FAULTS: dict[str, Callable[[bytes], bytes]] = {
    "cut off": lambda line: line[: len(line) // 2],
    "no last brace": lambda line: line[:-1],
    "no comma": _replace(rb',"ts"', rb'"ts"'),
    "two sessions in a line": lambda line: line + line,
    "not JSON": lambda line: b"<html>502 Bad Gateway</html>",
    "a NUL byte": lambda line: b"\0" + line,
    "invalid UTF-8": _replace(rb'"type":"', b'"type":"\xff'),
    "invalid UTF-8 at the end": lambda line: line + b"\xe2\x82",
    "aid in quotes": _replace(rb'"aid":(\d+)', rb'"aid":"\1"'),
    "aid with a fraction": _replace(rb'"aid":(\d+)', rb'"aid":\1.5'),
    "aid beyond 64 bits": _replace(rb'"aid":\d+', rb'"aid":9223372036854775808'),
    "aid beyond any integer": _replace(rb'"aid":\d+', rb'"aid":1e400'),
    "aid with a leading zero": _replace(rb'"aid":', rb'"aid":0'),
    "negative aid": _replace(rb'"aid":', rb'"aid":-1'),
    "aid null": _replace(rb'"aid":\d+', rb'"aid":null'),
    "aid true": _replace(rb'"aid":\d+', rb'"aid":true'),
    "aid NaN": _replace(rb'"aid":\d+', rb'"aid":NaN'),
    "ts in seconds": _replace(rb'"ts":(\d+)\d{3}', rb'"ts":\1'),
    "ts in microseconds": _replace(rb'"ts":(\d+)', rb'"ts":\g<1>000'),
    "ts in the future": _replace(rb'"ts":\d+', rb'"ts":3786912000000'),
    "ts as text": _replace(rb'"ts":\d+', rb'"ts":"2022-08-01T00:00:00Z"'),
    "unknown type": _replace(rb'"type":"\w+"', rb'"type":"views"'),
    "unknown type in the last event": _replace(rb'"type":"\w+"\}\]\}$', rb'"type":"views"}]}'),
    "no type": _replace(rb',"type":"\w+"', rb""),
    "no session": _replace(rb'"session":\d+,', rb""),
    "an unknown field": _replace(rb'\{"aid"', rb'{"price":1,"aid"'),
    "an unknown field of the session": _replace(rb'"events"', rb'"shop":1,"events"'),
    "a field twice": _replace(rb'"aid":\d+', rb"\g<0>,\g<0>"),
    "a field of the session twice": _replace(rb'"session":\d+', rb"\g<0>,\g<0>"),
    "no events": _replace(rb"\[.*\]", rb"[]"),
    "events null": _replace(rb"\[.*\]", rb"null"),
    "a list": lambda line: b"[" + line + b"]",
}
"""Ways to break a line; none makes two lines of it or a blank one."""
