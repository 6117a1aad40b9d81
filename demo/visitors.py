"""Visitors who click what they are shown, with probabilities that can be computed exactly.

At each step of a visit, a box with an answer is shown: article ids, best first. The visitor looks
at each position with a known probability (`examination`), and wants one article next, which is
the given one with a known probability (`Visitors.attraction`). Who looks where the wanted article
is clicks it. So a visitor clicks at most once on an answer, and

    P(click on position k) = examination(k) * attraction(article at k)

The sum over the positions is the expected number of clicks of an answer. It is at most 1, as the
attractions of all articles together are 1. This is the position-based model with the examination
of Joachims, Swaminathan and Schnabel, "Unbiased Learning-to-Rank with Biased Feedback", 2017.

A click does not change the course of a visit: what a visitor looks at next is what `simulate` says,
whatever is shown. So releases are compared on the same sessions, and what models learn from does
not depend on what was live. Each step has one draw, which decides over any answer to it: two models
that are asked in the same steps differ by their answers alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

import numpy as np

from demo.shop import (
    BROWSING,
    FOCUS,
    MAX_LENGTH,
    RELATED,
    RETURNING,
    STEP_MS,
    STYLES,
    Offer,
    Plan,
    Shop,
    Visit,
)

NEXT_SHARES = np.array([0.5, 0.25, 0.125, 0.125])
"""How visitors who go on to a related article divide among the NEXT ones of `Offer.next`."""


@dataclass(frozen=True)
class Visitors:
    """Steps of visits of a day; each array has a row for each step, in the order of the visits."""

    offer: Offer
    session: np.ndarray
    """Session number, as in `simulate`: int64 (n,)."""
    time: np.ndarray
    """ms since 1970 UTC: int64 (n,)."""
    visited: np.ndarray
    """Slots of the articles until this step, in order, then -1: int64 (n, MAX_LENGTH)."""
    taste: np.ndarray
    """The visitor's place in the space of styles: (n, STYLES)."""
    liking: np.ndarray
    """Sum of the visitor's liking over all articles: (n,)."""
    draw: np.ndarray
    """What decides over a click, 0 to 1: (n,)."""

    def __len__(self) -> int:
        """Number of steps, which is the number of requests."""
        return len(self.session)

    def take(self, rows: np.ndarray) -> "Visitors":
        """Only these steps: row numbers, or a mask (n,)."""
        arrays = {field.name: getattr(self, field.name) for field in fields(self)}
        del arrays["offer"]
        return replace(self, **{name: array[rows] for name, array in arrays.items()})

    @property
    def length(self) -> np.ndarray:
        """Number of articles until each step: (n,)."""
        return (self.visited >= 0).sum(axis=1)

    @property
    def last(self) -> np.ndarray:
        """Slot of the article of each step: (n,)."""
        return self.visited[np.arange(len(self)), self.length - 1]

    def attraction(self, answers: np.ndarray) -> np.ndarray:
        """Probability that the visitor wants each article of `answers` next: (n, k).

        `answers` are article ids, int64 (n, k). An article that is not on offer is wanted by
        nobody, so that a short answer is filled up with -1. It is what `Shop.following` does.
        """
        slots = self.offer.slots(answers)
        shown = slots[:, :, None]
        returning = (shown == self.visited[:, None, :]).sum(axis=2) / self.length[:, None]
        related = (shown == self.offer.next[self.last][:, None, :]) @ NEXT_SHARES
        nearness = np.einsum("nks,ns->nk", self.offer.style[slots], self.taste)
        browsing = np.exp(FOCUS * nearness + self.offer.appeal[slots]) / self.liking[:, None]
        anywhere = 1 / len(self.offer.ids)
        wanted = (
            RETURNING * returning
            + (RELATED - RETURNING) * related
            + (BROWSING - RELATED) * browsing
            + (1 - BROWSING) * anywhere
        )
        return np.where(slots >= 0, wanted, 0.0)

    def probabilities(self, answers: np.ndarray) -> np.ndarray:
        """Probability of a click on each position of `answers`, article ids (n, k): (n, k).

        An article that an answer has twice is clicked at its first position.
        """
        same = answers[:, :, None] == answers[:, None, :]
        repeated = np.tril(same, -1).any(axis=2)
        clicked = examination(answers.shape[1]) * self.attraction(answers)
        return np.where(repeated, 0.0, clicked)

    def expected_clicks(self, answers: np.ndarray) -> np.ndarray:
        """Expected number of clicks on each of the `answers`, article ids (n, k): (n,)."""
        return self.probabilities(answers).sum(axis=1)

    def clicks(self, answers: np.ndarray) -> np.ndarray:
        """Position, from 0, that each visitor clicks in the answer; -1 for none: int64 (n,)."""
        passed = self.probabilities(answers).cumsum(axis=1) <= self.draw[:, None]
        return np.where(passed.all(axis=1), -1, passed.sum(axis=1))

    def requests(self) -> list[dict]:
        """What the shop asks the gateway in each step: bodies of the recommender's requests."""
        bodies = []
        for session, time, slots in zip(self.session, self.time, self.visited, strict=True):
            articles = self.offer.ids[slots[slots >= 0]].tolist()
            first = int(time) - STEP_MS * (len(articles) - 1)
            events = [
                {"aid": article, "ts": first + STEP_MS * number, "type": "clicks"}
                for number, article in enumerate(articles)
            ]
            bodies.append({"session": int(session), "events": events})
        return bodies


def examination(count: int) -> np.ndarray:
    """Probability that a visitor looks at each of `count` positions: 1, 1/2, 1/3, ...: (count,)."""
    return 1 / np.arange(1, count + 1)


def days(plan: Plan, seed: int = 0) -> Iterator[Visitors]:
    """Visitors of each day of the shop of `simulate(plan)`; `seed` decides over their clicks."""
    shop = Shop(plan)
    for number in range(plan.days):
        visits = shop.visits(number)
        rng = np.random.default_rng([seed, number])
        yield of_visits(shop.offer(), visits, number * plan.sessions_per_day, rng)


def of_visits(offer: Offer, visits: list[Visit], first: int, rng: np.random.Generator) -> Visitors:
    """The steps of `visits`, whose sessions are numbered from `first`; `rng` decides over their
    clicks."""
    lengths = np.array([len(visit.slots) for visit in visits])
    tastes = np.array([visit.taste for visit in visits]).reshape(-1, STYLES)
    liking = np.exp(FOCUS * tastes @ offer.style.T + offer.appeal).sum(axis=1)
    paths = np.full((len(visits), MAX_LENGTH), -1)
    for path, visit in zip(paths, visits, strict=True):
        path[: len(visit.slots)] = visit.slots
    row = np.repeat(np.arange(len(visits)), lengths)
    step = np.concatenate([np.arange(length) for length in lengths])
    start = np.array([visit.start for visit in visits])
    return Visitors(
        offer=offer,
        session=first + row,
        time=start[row] + STEP_MS * step,
        visited=np.where(np.arange(MAX_LENGTH) <= step[:, None], paths[row], -1),
        taste=tastes[row],
        liking=liking[row],
        draw=rng.random(len(row)),
    )
