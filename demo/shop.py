"""A simulated shop: deterministic sessions in OTTO's format, with structure worth learning and one real change.

A session stays mostly on one topic. Each article has a few articles that visitors go to next; visitors also return to
what they have seen, browse the topic by popularity, or jump. Every week some articles leave and new ones come. At one
point the season changes: a large part of the assortment is replaced, and visitors go from article to article in other
ways.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl

START_MS = 1_767_225_600_000
"""2026-01-01, UTC."""
DAY_MS = 86_400_000
NEXT = 4


@dataclass(frozen=True)
class Plan:
    """Size and history of the shop."""

    days: int = 80
    sessions_per_day: int = 850
    articles: int = 1500
    topics: int = 50
    weekly_churn: float = 0.02
    change_day: int = 46
    changed: float = 0.5
    """Share of the articles that the season replaces."""
    seed: int = 0


class Shop:
    """The assortment of a moment: one slot per article on offer."""

    def __init__(self, plan: Plan):
        self.plan, self.rng = plan, np.random.default_rng(plan.seed)
        self.topic = self.rng.integers(plan.topics, size=plan.articles)
        self.by_topic = [np.flatnonzero(self.topic == t) for t in range(plan.topics)]
        self.ids = self.rng.choice(np.arange(10**6, 10**6 + 10 * plan.articles), plan.articles, replace=False)
        self.fresh_id = 2 * 10**7
        self.appeal = self.rng.zipf(1.6, plan.articles).clip(max=200).astype(float)
        self.next = np.stack([self._relations(slot) for slot in range(plan.articles)])

    def day(self, number: int) -> list[tuple[int, list[int]]]:
        """Sessions of a day: start in ms since 1970 UTC, and article ids in order. Advances the assortment."""
        if number == self.plan.change_day:
            self._replace(self.plan.changed, rewire=True)
        elif number % 7 == 0:
            self._replace(self.plan.weekly_churn, rewire=False)
        count = self.plan.sessions_per_day
        starts = START_MS + number * DAY_MS + np.sort(self.rng.integers(DAY_MS - 3_600_000, size=count))
        return [(int(start), self._session()) for start in starts]

    def _session(self) -> list[int]:
        slots = self.by_topic[self.rng.integers(self.plan.topics)]
        weights = self.appeal[slots] / self.appeal[slots].sum()
        seen = [self.rng.choice(slots, p=weights)]
        for draw in self.rng.random(min(1 + self.rng.geometric(0.28), 30)):
            if draw < 0.15:
                following = seen[self.rng.integers(len(seen))]
            elif draw < 0.7:
                following = self.next[seen[-1]][min(self.rng.geometric(0.5) - 1, NEXT - 1)]
            elif draw < 0.92:
                following = self.rng.choice(slots, p=weights)
            else:
                following = self.rng.integers(self.plan.articles)
            seen.append(following)
        return self.ids[seen].tolist()

    def _relations(self, slot: int) -> np.ndarray:
        return self.rng.choice(self.by_topic[self.topic[slot]], NEXT)

    def _replace(self, share: float, rewire: bool) -> None:
        slots = self.rng.choice(self.plan.articles, int(share * self.plan.articles), replace=False)
        self.ids[slots] = np.arange(self.fresh_id, self.fresh_id + len(slots))
        self.fresh_id += len(slots)
        self.appeal[slots] = self.rng.zipf(1.6, len(slots)).clip(max=200)
        for slot in range(self.plan.articles) if rewire else slots:
            self.next[slot] = self._relations(slot)


def simulate(plan: Plan | None = None) -> pl.DataFrame:
    """All events of the shop: columns session, aid, ts (ms since 1970 UTC), type; ordered by session and time."""
    plan = plan or Plan()
    shop = Shop(plan)
    sessions = [session for day in range(plan.days) for session in shop.day(day)]
    lengths = [len(articles) for _, articles in sessions]
    steps = np.concatenate([np.arange(n) for n in lengths])
    return pl.DataFrame(
        {
            "session": np.repeat(np.arange(len(sessions)), lengths),
            "aid": np.concatenate([articles for _, articles in sessions]),
            "ts": np.repeat([start for start, _ in sessions], lengths) + 20_000 * steps,
            "type": pl.repeat("clicks", len(steps), eager=True),
        }
    )
