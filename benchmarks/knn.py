"""Session kNN: what visitors looked at in the most similar sessions; compiled, on one thread.

Candidates are the newest sessions that share an article, as in V-SKNN of Ludewig and Jannach,
"Evaluation of session-based recommendation algorithms", 2018, which also weighs rare articles more.
The three decays, with age of the session's events, with age of the neighbour, and with distance
from what is shared, are those of STAN: Garg et al., "Sequence and time aware neighborhood for
session-based recommendations: STAN", 2019.
"""

from typing import NamedTuple

import numba
import numpy as np
import polars as pl

from models.session_recommender.features import DAY_MS, LENGTH, Catalogue, events


class Settings(NamedTuple):
    """Hyperparameters, tuned on Diginetica without its test.

    Of its train sessions, those below 178,670 answered the later ones.
    """

    newest: int = 1_000
    """Maximum sessions per shared article, the newest, of which the neighbours are chosen."""
    neighbours: int = 200
    """Maximum neighbours that vote."""
    event: float = 0.65
    """Weight of an event of the session, as a share of the next one's."""
    rare: float = 3.0
    """Power of the logarithm by which an article that few sessions have counts more."""
    days: float = 100.0
    """Days in which a neighbour's weight falls by e."""
    length: float = 0.15
    """Power of a neighbour's length by which its weight is divided; a cosine has 0.5."""
    distance: float = 0.7
    """Weight of a neighbour's article, as a share of one that is a place nearer to the newest
    shared article."""
    back: float = 0.65
    """Further weight of the articles before the newest shared one."""
    again: float = 3.0
    """Factor of an article for each time that the session has had it."""


TUNED = Settings()
"""Settings of the published results."""
compiled = numba.njit(cache=True, nogil=True)


class Neighbours:
    """Sessions in the order of time, and where to find each article in them."""

    def __init__(self, rows: pl.DataFrame, settings: Settings = TUNED):
        e = events(rows)
        self.catalogue = Catalogue.of(e)
        self.settings = settings
        row = self.catalogue.rows(e.aid)
        starts = e.ts[e.position == 0]
        place = np.argsort(np.argsort(starts, kind="stable"))[np.cumsum(e.position == 0) - 1]
        length = np.bincount(place)
        age_ms = np.sort(starts) - starts.max(initial=0)
        weight = np.exp(age_ms / (DAY_MS * settings.days)) / length**settings.length
        key = np.unique(row * len(length) + place)
        posted = np.searchsorted(key, np.arange(self.catalogue.size + 1) * len(length))
        rarity = np.log1p(len(length) / np.maximum(np.diff(posted), 1)) ** settings.rare
        items = row[np.argsort(place, kind="stable")]
        first = np.r_[0, np.cumsum(length)]
        self.index = (items, first, key % max(len(length), 1), posted, weight, rarity)

    def answers(self, article_ids: np.ndarray) -> np.ndarray:
        """Raw ids of prefixes, oldest first, to the best articles, best first.

        Both are int64 (n, 20), -1 where there is none.
        """
        rows = self.catalogue.rows(article_ids)
        raw = self.catalogue.raw()
        return raw[_answers(rows, self.catalogue.nothing, *self.index, self.settings)]


@compiled
def _answers(prefixes, nothing, items, first, sessions, posted, weight, rarity, s):
    """Rows of the best articles for each prefix, `nothing` where there are fewer."""
    similar = np.zeros(len(weight))
    score = np.zeros(nothing + 1)
    # Events since an article's newest one; LENGTH if the prefix lacks it.
    age = np.full(nothing + 1, LENGTH)
    result = np.full((len(prefixes), LENGTH), nothing)
    for i in range(len(prefixes)):
        prefix = prefixes[i][prefixes[i] < nothing]
        for j in range(len(prefix)):
            age[prefix[j]] = len(prefix) - 1 - j
        near = _nearest(np.unique(prefix), age, sessions, posted, weight, rarity, similar, s)
        candidates = _vote(near, age, items, first, similar, score, s)
        for a in prefix:
            score[a] *= s.again
        best = candidates[np.argsort(-score[candidates], kind="mergesort")[:LENGTH]]
        result[i, : len(best)] = best
        score[candidates] = 0.0
        similar[near] = 0.0
        age[prefix] = LENGTH
    return result


@compiled
def _nearest(articles, age, sessions, posted, weight, rarity, similar, s):
    """The most similar sessions; `similar` is left filled for these alone.

    The prefix's own length changes no order.
    """
    sharing = [0 for _ in range(0)]
    for a in articles:
        for n in sessions[max(posted[a], posted[a + 1] - s.newest) : posted[a + 1]]:
            if similar[n] == 0.0:
                sharing.append(n)
            similar[n] += weight[n] * rarity[a] * s.event ** age[a]
    by_time = np.sort(np.array(sharing, np.int64))
    near = by_time[-s.newest :]
    order = np.argsort(-similar[near], kind="mergesort")
    similar[by_time[: -s.newest]] = 0.0
    similar[near[order[s.neighbours :]]] = 0.0
    return near[order[: s.neighbours]]


@compiled
def _vote(near, age, items, first, similar, score, s):
    """The articles of sessions, once each; `score` is left filled for them."""
    candidates = [0 for _ in range(0)]
    for n in near:
        session = items[first[n] : first[n + 1]]
        match = 0
        for i in range(len(session)):
            if age[session[i]] <= age[session[match]]:
                match = i
        for i in range(len(session)):
            a = session[i]
            gap = i - match
            if score[a] == 0.0:
                candidates.append(a)
            weight = similar[n] * s.distance ** abs(gap)
            if gap < 0:
                weight *= s.back
            score[a] += weight
    return np.array(candidates, np.int64)
