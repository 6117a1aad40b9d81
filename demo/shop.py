"""A simulated shop: deterministic sessions in OTTO's format, with one real change.

Every article has a place in a space of styles, and every visitor a taste: the nearer and the more
popular an article, the likelier it is looked at. Each article also has a few articles that visitors
go to next. Visitors return to articles that they have looked at, or jump anywhere. Every week some
articles leave and new ones come. At one point the season changes: a large share of the assortment
is replaced, and visitors go from article to article in other ways.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

from kreislauf.clock import DAY_MS
from models.session_recommender.schema import EVENT_TYPES

START_MS = 1_767_225_600_000
"""2026-01-01, UTC."""
NEXT = 4
"""Number of articles that visitors go to next from an article."""
STYLES = 8
"""Dimensions of the space of styles."""
FOCUS = 7.0
"""Strength of a visitor's preference for articles near the own taste."""
RETURNING = 0.15
"""Draws below this lead back to an article that was looked at."""
RELATED = 0.45
"""Further draws below this lead to an article that visitors go to next."""
BROWSING = 0.9
"""Further draws below this lead where the own taste does; the others lead anywhere."""
MAX_LENGTH = 30
"""Most articles that a visitor looks at."""
STEP_MS = 20_000
"""Time between two articles of a visit."""


@dataclass(frozen=True)
class Plan:
    """Size and history of the shop."""

    days: int = 70
    sessions_per_day: int = 850
    articles: int = 3000
    weekly_churn: float = 0.01
    change_day: int = 42
    changed: float = 0.35
    """Share of the articles that the season replaces."""
    seed: int = 0


@dataclass(frozen=True)
class Visit:
    """What one visitor looks at."""

    start: int
    """ms since 1970 UTC."""
    taste: np.ndarray
    """Place in the space of styles: (STYLES,)."""
    slots: list[int]
    """Slots of the articles, in order."""


@dataclass(frozen=True)
class Offer:
    """The assortment of a day, which stays as it was."""

    ids: np.ndarray
    """Article ids by slot: (articles,)."""
    style: np.ndarray
    """(articles, STYLES)."""
    appeal: np.ndarray
    """(articles,)."""
    next: np.ndarray
    """Slots of the articles that visitors go to next, the likeliest first: (articles, NEXT)."""

    @cached_property
    def by_id(self) -> np.ndarray:
        """Slots in the order of their article ids: (articles,)."""
        return np.argsort(self.ids)

    def slots(self, articles: np.ndarray) -> np.ndarray:
        """Slots of article ids, in the same shape; -1 for an article that is not on offer."""
        order = self.by_id
        place = np.searchsorted(self.ids, articles, sorter=order).clip(max=len(order) - 1)
        slots = order[place]
        return np.where(self.ids[slots] == articles, slots, -1)


class Shop:
    """The assortment of a moment: one slot per article on offer."""

    def __init__(self, plan: Plan):
        self.plan = plan
        self.rng = np.random.default_rng(plan.seed)
        self.ids = self.rng.choice(
            np.arange(10**6, 10**6 + 10 * plan.articles), plan.articles, replace=False
        )
        self.fresh_id = 2 * 10**7
        self.style = self.styles(plan.articles)
        self.appeal = self.appeals(plan.articles)
        self.next = np.stack([self.relations(slot) for slot in range(plan.articles)])

    def day(self, number: int) -> list[tuple[int, list[int]]]:
        """Sessions of a day: start in ms since 1970 UTC, and article ids in order.

        Advances the assortment.
        """
        return [(visit.start, self.ids[visit.slots].tolist()) for visit in self.visits(number)]

    def visits(self, number: int) -> list[Visit]:
        """Visits of a day, in the order of their starts. Advances the assortment."""
        if number == self.plan.change_day:
            self.replace(self.plan.changed, rewire=True)
        elif number % 7 == 0:
            self.replace(self.plan.weekly_churn, rewire=False)
        count = self.plan.sessions_per_day
        starts = (
            START_MS + number * DAY_MS + np.sort(self.rng.integers(DAY_MS - 3_600_000, size=count))
        )
        return [self.visit(int(start)) for start in starts]

    def visit(self, start: int) -> Visit:
        """One visit that begins at `start` (ms since 1970 UTC)."""
        taste = self.styles(1)[0]
        liking = np.exp(FOCUS * self.style @ taste + self.appeal).cumsum()
        length = min(2 + self.rng.geometric(0.28), MAX_LENGTH)
        looked_at = np.searchsorted(liking, self.rng.random(length) * liking[-1])
        visited = [int(looked_at[0])]
        for draw, browsed in zip(self.rng.random(length - 1), looked_at[1:], strict=True):
            visited.append(int(self.following(visited, draw, browsed)))
        return Visit(start, taste, visited)

    def offer(self) -> Offer:
        """The assortment as it is now."""
        return Offer(self.ids.copy(), self.style.copy(), self.appeal.copy(), self.next.copy())

    def following(self, visited: list[int], draw: float, browsed: int) -> int:
        """Slot that a visitor goes to after those of `visited`, in a way that `draw`, 0 to 1,
        chooses; `browsed` is what the own taste suggests."""
        if draw < RETURNING:
            return visited[self.rng.integers(len(visited))]
        if draw < RELATED:
            return self.next[visited[-1]][min(self.rng.geometric(0.5) - 1, NEXT - 1)]
        if draw < BROWSING:
            return browsed
        return int(self.rng.integers(self.plan.articles))

    def styles(self, count: int) -> np.ndarray:
        """Styles of `count` articles, or tastes of `count` visitors: (count, STYLES)."""
        drawn = self.rng.normal(size=(count, STYLES))
        return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)

    def appeals(self, count: int) -> np.ndarray:
        """Popularity of `count` articles, as logarithms: (count,)."""
        return self.rng.normal(0, 1, count)

    def relations(self, slot: int) -> np.ndarray:
        """Slots of the articles that visitors go to next from `slot`: (NEXT,)."""
        near = np.argpartition(-self.style @ self.style[slot], 30)[:30]
        return self.rng.choice(near, NEXT)

    def replace(self, share: float, rewire: bool) -> None:
        """Replace a share of the articles by new ones.

        With `rewire`, visitors also go other ways from all articles that stay.
        """
        slots = self.rng.choice(self.plan.articles, int(share * self.plan.articles), replace=False)
        self.ids[slots] = np.arange(self.fresh_id, self.fresh_id + len(slots))
        self.fresh_id += len(slots)
        self.style[slots] = self.styles(len(slots))
        self.appeal[slots] = self.appeals(len(slots))
        if rewire:
            slots = np.arange(self.plan.articles)
        for slot in slots:
            self.next[slot] = self.relations(slot)


def simulate(plan: Plan | None = None) -> pl.DataFrame:
    """All events of the shop, ordered by session and time.

    Columns: session, aid, ts (ms since 1970 UTC), type.
    """
    plan = plan or Plan()
    shop = Shop(plan)
    sessions = [session for day in range(plan.days) for session in shop.day(day)]
    lengths = [len(articles) for _, articles in sessions]
    steps = np.concatenate([np.arange(n) for n in lengths])
    return pl.DataFrame(
        {
            "session": np.repeat(np.arange(len(sessions)), lengths),
            "aid": np.concatenate([articles for _, articles in sessions]),
            "ts": np.repeat([start for start, _ in sessions], lengths) + STEP_MS * steps,
            "type": pl.repeat("clicks", len(steps), eager=True, dtype=pl.Enum(EVENT_TYPES)),
        }
    )
