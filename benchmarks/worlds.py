"""Simulated shops in which one thing happens, and what a monitor should say of it; for
benchmarks.monitoring.

Until it happens articles and visitors stay as they are: a window before that is one without any
change.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl

from demo.shop import START_MS, Plan, Shop
from kreislauf.clock import DAY_MS
from models.session_recommender.schema import EVENT_TYPES

CARTS = 0.078
ORDERS = 0.024
"""Shares of events, about those of OTTO's data."""
SPREAD = 1.5
"""Of popularity, as a logarithm, against that of the demo's shop: some articles are far more
popular than most."""
Fault = Callable[[pl.DataFrame], pl.DataFrame]
"""What becomes of events on their way into the table."""


@dataclass(frozen=True)
class Kind:
    """Something that can happen."""

    verdict: str
    """The right one."""
    change: Callable[[Shop], None] | None = None
    """To the shop, once."""
    fault: Callable[[Shop, np.random.Generator], Fault] | None = None
    """To its events, from then on."""


def assortment(shop: Shop) -> None:
    """A third of the articles is replaced; the ways between the others stay."""
    shop.replace(1 / 3, rewire=False)


def popularity(shop: Shop) -> None:
    """Other articles are liked, as much as those before."""
    shop.appeal = shop.rng.permutation(shop.appeal)


def relations(shop: Shop) -> None:
    """Visitors go from each article to other ones."""
    shop.next = np.stack([shop.relations(slot) for slot in range(shop.plan.articles)])


def wrong_ids(shop: Shop, rng: np.random.Generator) -> Fault:
    """Every third event carries the id of some other article on offer."""
    ids = pl.Series(shop.ids)

    def fault(events: pl.DataFrame) -> pl.DataFrame:
        drawn = ids.gather(rng.integers(len(ids), size=events.height))
        return events.with_columns(
            aid=pl.when(pl.Series(rng.random(events.height) < 0.3)).then(drawn).otherwise("aid")
        )

    return fault


def id_scheme(shop: Shop, rng: np.random.Generator) -> Fault:
    """Every article has another id: a new one, or, in half of the shops, that of another
    article."""
    new = rng.permutation(shop.ids) if rng.random() < 0.5 else shop.ids + 10**9
    return lambda events: events.with_columns(
        pl.col("aid").replace_strict(pl.Series(shop.ids), pl.Series(new))
    )


def sentinel(shop: Shop, rng: np.random.Generator) -> Fault:
    """Every tenth event has the article id 0."""
    return lambda events: events.with_columns(
        aid=pl.when(pl.Series(rng.random(events.height) < 0.1)).then(0).otherwise("aid")
    )


def season(shop: Shop, rng: np.random.Generator) -> Fault:
    """Visitors are in a hurry: they leave after three events, and buy more often."""

    def fault(events: pl.DataFrame) -> pl.DataFrame:
        short = events.filter(pl.int_range(pl.len()).over("session") < 3)
        return short.with_columns(type=types(short.height, rng, 0.14, 0.05))

    return fault


def volume(shop: Shop, rng: np.random.Generator) -> Fault:
    """Two of five visitors stay away."""
    return lambda events: events.filter(
        pl.Series(rng.random(events["session"].n_unique()) < 0.6).gather(rank(events))
    )


KINDS = {
    "none": Kind("stable"),
    "assortment": Kind("concept drift", change=assortment),
    "popularity": Kind("concept drift", change=popularity),
    "relations": Kind("concept drift", change=relations),
    "wrong ids": Kind("data fault", fault=wrong_ids),
    "id scheme": Kind("data fault", fault=id_scheme),
    "sentinel": Kind("data fault", fault=sentinel),
    "season": Kind("covariate shift", fault=season),
    "volume": Kind("covariate shift", fault=volume),
}


def types(
    count: int, rng: np.random.Generator, carts: float = CARTS, orders: float = ORDERS
) -> pl.Series:
    """Types of so many events."""
    drawn = rng.choice(len(EVENT_TYPES), size=count, p=[1 - carts - orders, carts, orders])
    return pl.Series(np.array(EVENT_TYPES)[drawn], dtype=pl.Enum(EVENT_TYPES))


def rank(events: pl.DataFrame) -> pl.Series:
    """Number of each event's session, from 0."""
    return events["session"].rank("dense").cast(pl.Int64) - 1


def days(shop: Shop, first: int, last: int, rng: np.random.Generator) -> pl.DataFrame:
    """Events of the days from `first` to `last` (exclusive), as rows of the table events. Session
    ids ascend."""
    visits = [visit for day in range(first, last) for visit in shop.day(day)]
    lengths = [len(articles) for _, articles in visits]
    steps = np.concatenate([np.arange(n) for n in lengths])
    return pl.DataFrame(
        {
            "session": np.repeat(np.arange(len(visits)) + first * 10**6, lengths),
            "aid": np.concatenate([articles for _, articles in visits]),
            "ts": np.repeat([start for start, _ in visits], lengths) + 20_000 * steps,
            "type": types(len(steps), rng),
        }
    )


def future(
    shop: Shop, kind: Kind, first: int, begins: int, last: int, rng: np.random.Generator
) -> pl.DataFrame:
    """Events of the days from `first` to `last` (exclusive), if `kind` happens on the day `begins`;
    `shop` stays."""
    shop = copy.deepcopy(shop)
    shop.rng = np.random.default_rng(rng.integers(2**63))
    before = days(shop, first, begins, rng)
    if kind.change:
        kind.change(shop)
    after = days(shop, begins, last, rng)
    fault = kind.fault(shop, rng) if kind.fault else None
    return pl.concat([before, fault(after) if fault else after])


def at(day: float) -> int:
    """ms since 1970 UTC."""
    return START_MS + int(day * DAY_MS)


def shop(seed: int, articles: int, sessions_per_day: int) -> Shop:
    """A shop in which nothing ever happens by itself."""
    plan = Plan(
        articles=articles,
        sessions_per_day=sessions_per_day,
        weekly_churn=0.0,
        change_day=10**9,
        seed=seed,
    )
    made = Shop(plan)
    made.appeal *= SPREAD
    return made
