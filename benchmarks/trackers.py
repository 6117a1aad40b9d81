"""What trackers do wrong, and an assortment that is replaced as a whole; for benchmarks.operation.

Truncation and the lost field chose no rule of the monitor. The others had one built for them, on
other seeds than those of the benchmark.
"""

import numpy as np
import polars as pl

from benchmarks.worlds import Fault, Kind, types
from demo.shop import STYLES, Shop

BOT_SHARE = 0.05
"""Sessions of bots, as a share of those of people."""
BOT_PAGES = 50
"""Articles that a bot looks at in a session."""
LOST_CATEGORY = 0.2
"""Share of the articles that are of the category that is lost."""
CLOCK_MS = 2 * 3_600_000
"""By how much the clock of the shop's server is behind that of browsers."""


def whole_assortment(shop: Shop) -> None:
    """Every article is replaced, and visitors go other ways."""
    shop.replace(1.0, rewire=True)


def random_order(shop: Shop, rng: np.random.Generator) -> Fault:
    """The times of a session's events are in random order."""

    def fault(events: pl.DataFrame) -> pl.DataFrame:
        drawn = pl.Series("drawn", rng.random(events.height))
        shuffled = events.with_columns(drawn).sort("session", "drawn")
        times = events.sort("session", "ts")["ts"]
        return shuffled.with_columns(times).drop("drawn")

    return fault


def fired_twice(shop: Shop, rng: np.random.Generator) -> Fault:
    """Every event fires twice, 30 ms apart."""

    def fault(events: pl.DataFrame) -> pl.DataFrame:
        return pl.concat([events, events.with_columns(pl.col("ts") + 30)])

    return fault


def truncation(shop: Shop, rng: np.random.Generator) -> Fault:
    """The later half of each session is lost."""
    number = pl.int_range(pl.len()).over("session")
    return lambda events: events.filter(number < (pl.len().over("session") + 1) // 2)


def bots(shop: Shop, rng: np.random.Generator) -> Fault:
    """Crawlers go through the articles in the order of their ids."""
    ids = np.sort(shop.ids)

    def fault(events: pl.DataFrame) -> pl.DataFrame:
        starts = events.group_by("session").agg(pl.col("ts").min()).sort("session")
        count = round(BOT_SHARE * starts.height)
        drawn = starts.sample(count, seed=int(rng.integers(2**31)))
        first = rng.integers(len(ids), size=count)
        articles = ids[(first[:, None] + np.arange(BOT_PAGES)) % len(ids)]
        times = drawn["ts"].to_numpy()[:, None] + 1_000 * np.arange(BOT_PAGES)
        visits = pl.DataFrame(
            {
                "session": np.repeat(drawn["session"].to_numpy() + 500_000, BOT_PAGES),
                "aid": articles.ravel(),
                "ts": times.ravel(),
                "type": types(count * BOT_PAGES, rng, 0.0, 0.0),
            }
        )
        return pl.concat([events, visits])

    return fault


def lost_category(shop: Shop, rng: np.random.Generator) -> Fault:
    """A fifth of the articles, which are like each other, are not tracked any more."""
    direction = rng.normal(size=STYLES)
    count = int(LOST_CATEGORY * len(shop.ids))
    lost = shop.ids[np.argsort(shop.style @ direction)[:count]].tolist()
    return lambda events: events.filter(~pl.col("aid").is_in(lost))


def clock_shift(shop: Shop, rng: np.random.Generator) -> Fault:
    """Carts and orders come from a server whose clock is two hours behind."""
    late = pl.col("type") != "clicks"
    return lambda events: events.with_columns(
        pl.when(late).then(pl.col("ts") - CLOCK_MS).otherwise("ts").alias("ts")
    )


def lost_field(shop: Shop, rng: np.random.Generator) -> Fault:
    """Every event is recorded as a click."""
    return lambda events: events.with_columns(type=types(events.height, rng, 0.0, 0.0))


FAULT = ("data fault",)
FAULT_OR_SHIFT = ("data fault", "covariate shift")
KINDS = {
    "random order": (Kind("data fault", fault=random_order), FAULT),
    "fired twice": (Kind("data fault", fault=fired_twice), FAULT),
    "truncation": (Kind("data fault", fault=truncation), FAULT_OR_SHIFT),
    "bots": (Kind("data fault", fault=bots), FAULT),
    "lost category": (Kind("data fault", fault=lost_category), FAULT_OR_SHIFT),
    "clock shift": (Kind("data fault", fault=clock_shift), FAULT_OR_SHIFT),
    "lost field": (Kind("data fault", fault=lost_field), FAULT_OR_SHIFT),
    "whole assortment": (Kind("data fault", change=whole_assortment), FAULT),
}
"""Each kind with the verdicts that are right.

Shorter sessions, fewer carts and articles that nobody looks at can be the shop's own doing: the
data cannot tell. Both verdicts start no training.
"""
