"""The loop as the story uses it: serve a period, ingest it, monitor it; train, publish, get clicks.

Import this only after the environment says where the stack is.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from demo import mishaps, raw_files, visitors
from demo.plan import PLAN, STARTS, within
from demo.recalls import Recalls, ask
from demo.shop import simulate
from demo.storefront import play
from flows.collect import collect
from flows.ingest import IngestReport, ingest
from flows.monitor import monitor
from flows.retrain import Retraining, retrain
from kreislauf import registry
from kreislauf.evaluation import split
from kreislauf.monitoring.finding import Finding
from kreislauf.release import releases
from models import spec

MODEL = "session_recommender"
WINDOW_DAYS = 2.0
ASKED_EVENTS = 4_000
"""Maximum events of a period, of sessions drawn at random, in which recall is measured: its
standard error is then about a point."""


@dataclass
class Loop:
    """The shop, its loop, and what has come of it."""

    folder: Path
    """Of the raw files."""
    everything: Callable[[], dict[str, dict]]
    """Returns what runs, by name, once all servers do."""
    frozen: Path = field(init=False)
    """ONNX file of the first model."""
    shop: pl.DataFrame = field(default_factory=lambda: simulate(PLAN))
    recalls: list[Recalls] = field(default_factory=list)
    """Of each period after the history."""
    outcomes: list[str] = field(default_factory=list)
    """Of each retraining."""
    events: int = 0
    """Retrainings that an event started."""
    data_faults: int = 0
    rolled_back: int = 0
    requests: int = 0

    def first_model(self) -> Retraining:
        """Train a model on the history, judge it, and put it live."""
        self.ingest("history", self.events_of("history"))
        first = self.retrain("the first model", seed=0)
        if first.release is None or first.version is None:
            raise RuntimeError(f"The first model did not go live: {first.reason}")
        self.frozen = registry.onnx_file(registry.get(MODEL, first.version))
        return first

    def serve(self, name: str, tracked: pl.DataFrame | None = None, unreadable: int = 0) -> Recalls:
        """Let the live model answer what happens in a part of a period's sessions, and ingest what
        was `tracked` of the period, by default all."""
        events = self.events_of(name)
        asked = split.some(events, spec.load(MODEL).table, ASKED_EVENTS)
        recalls = ask(MODEL, asked, self.frozen)
        self.recalls.append(recalls)
        self.requests += recalls.requests
        self.ingest(name, events if tracked is None else tracked, unreadable)
        return recalls

    def look(self) -> Finding:
        """Run the monitor."""
        finding = monitor(MODEL, window_days=WINDOW_DAYS)
        assert finding is not None, "a model is live"
        self.data_faults += finding.verdict == "data fault"
        return finding

    def events_of(self, name: str) -> pl.DataFrame:
        """What visitors do in a period: the sessions that begin in it."""
        return self.shop.filter(within(name))

    def ingest(self, name: str, events: pl.DataFrame, unreadable: int = 0) -> IngestReport:
        """Load a period's events, with a number of lines `unreadable`."""
        path = raw_files.write(events, self.folder / f"{name}.jsonl")
        mishaps.add_unknown_field(path, unreadable)
        return ingest(str(path), MODEL)

    def retrain(self, reason: str, seed: int) -> Retraining:
        """Train a small model in this process, judge it, and publish it if it is better."""
        params = small_params() | {"seed": seed}
        retraining = retrain(MODEL, reason, params, cooldown_days=0.0)
        self.outcomes.append(retraining.outcome)
        return retraining

    def steps_of(self, name: str) -> visitors.Visitors:
        """Steps of the visits of a period's first day, in random order."""
        of_day = next(itertools.islice(visitors.days(PLAN), STARTS[name], None))
        return of_day.take(np.random.default_rng(0).permutation(len(of_day)))

    def clicks(self, steps: visitors.Visitors) -> float:
        """Clicks per answer of the gateway in these steps; they are in the lake then."""
        shown = play(steps, self.everything()["gateway"]["url"])
        self.requests += shown.height
        collect()
        return float(np.mean(shown["clicked"].to_numpy() >= 0))

    def summary(self) -> dict[str, Any]:
        """What came of it in numbers; recalls are those of the last period."""
        last = self.recalls[-1]
        return {
            "periods": len(self.recalls),
            "frozen_recall": round(last.frozen, 4),
            "table_recall": round(last.table, 4),
            "live_recall": round(last.live, 4),
            "retrainings": len(self.outcomes),
            "events": self.events,
            "promoted": self.outcomes.count("promote"),
            "refused": self.outcomes.count("refuse"),
            "inconclusive": self.outcomes.count("inconclusive"),
            "live_version": live_version(),
            "requests": self.requests,
            "rolled_back": self.rolled_back,
            "data_faults": self.data_faults,
        }


def live_version() -> int | None:
    """Number of the champion."""
    return releases.champion(MODEL)


def small_params() -> dict[str, Any]:
    """The preset for small shops."""
    return spec.load(MODEL).Params.small().model_dump()  # type: ignore[attr-defined]
