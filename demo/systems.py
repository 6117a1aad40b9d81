"""The shop's other two systems, search results and support answers: each learns, goes live, meets a
season, and is retrained by the worker.

Import this only after the environment says where the stack is.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl

from demo import raw_files, retrainings
from demo.recalls import Recalls, ask
from demo.search_shop import SearchShop
from demo.story import Act
from demo.support_desk import SupportDesk
from flows.ingest import ingest
from flows.monitor import monitor
from flows.retrain import retrain
from kreislauf import registry
from kreislauf.monitoring.finding import Finding
from kreislauf.monitoring.policy import ASKED
from kreislauf.release import releases
from models import spec

SPANS = {"history": 5, "stable": 2, "season": 8, "after": 1}
"""Days of each period. The last one is answered and not learnt from."""
STARTS = dict(zip(SPANS, np.cumsum([0, *SPANS.values()]).tolist(), strict=False))
"""Day on which each period begins."""
WINDOW_DAYS = 2.0


@dataclass(frozen=True)
class System:
    """A model type, what happens to it, and how people speak of it."""

    model: str
    title: str
    change: str
    """What the season changes."""
    praise: str
    """What its metric means, as a sentence with a place for a percentage."""
    lines: Callable[[int, int], list[dict]]
    """Raw lines from a day to another, exclusive."""

    def lines_of(self, period: str) -> list[dict]:
        """Raw lines of a period."""
        return self.lines(STARTS[period], STARTS[period] + SPANS[period])

    def rows_of(self, period: str) -> pl.DataFrame:
        """The rows that they become."""
        table = spec.load(self.model).table
        decoded = [msgspec.convert(line, table.line) for line in self.lines_of(period)]
        return table.unfold(decoded).drop("line")

    def params(self) -> dict[str, Any]:
        """The preset for small shops."""
        return spec.load(self.model).Params.small().model_dump()  # type: ignore[attr-defined]


SYSTEMS = (
    System(
        model="search_ranker",
        title="The search results",
        change="customers want what is new, and no longer what sells",
        praise="its order is worth {:.0%} of the best one",
        lines=SearchShop(change_day=STARTS["season"]).lines,
    ),
    System(
        model="support_answers",
        title="The support answers",
        change="customers ask what nobody has asked before, and in other words",
        praise="it finds the right answer to {:.0%} of the questions",
        lines=SupportDesk(change_day=STARTS["season"]).lines,
    ),
)


@dataclass(frozen=True)
class Season:
    """What came of a system's season."""

    system: System
    first: int
    """First version that was live."""
    live: int | None
    """Version that is live in the end."""
    calm: Finding
    """What the monitor said before it."""
    changed: Finding
    """What it said then."""
    before: Recalls
    """How good the answers were before the season."""
    after: Recalls
    """How good they are after the retraining, of requests that nobody has learnt from."""

    @property
    def event(self) -> bool:
        """Whether the monitor's event started a retraining."""
        return self.changed.verdict == "concept drift" and self.changed.action == ASKED

    @property
    def happened(self) -> bool:
        """Whether the loop did as it should."""
        is_calm = self.calm.verdict == "stable" and self.calm.action != ASKED
        better = self.live != self.first and self.after.live > self.after.frozen
        return is_calm and self.event and better

    def act(self) -> Act:
        """The season in a line."""
        praise = self.system.praise
        return Act(
            self.system.title,
            self.happened,
            f"version {self.first} is live, and {praise.format(self.before.live)}. The monitor: "
            f"{self.calm.verdict}. Then the season changes: {self.system.change}. The monitor: "
            f"{self.changed.verdict}. {self.changed.action} The worker retrains, and version "
            f"{self.live} is live: {praise.format(self.after.live)}. With version {self.first} it "
            f"would be {self.after.frozen:.0%}.",
        )

    def summary(self) -> dict[str, Any]:
        """The season in numbers."""
        return {
            "metric": spec.load(self.system.model).metric,
            "before": round(self.before.live, 4),
            "frozen": round(self.after.frozen, 4),
            "live": round(self.after.live, 4),
            "stable": self.calm.verdict,
            "season": self.changed.verdict,
            "events": int(self.event),
            "live_version": self.live,
            "happened": self.happened,
        }


def play(system: System, folder: Path) -> Season:
    """Let a system learn, look at calm days, change the season, and wait for the retraining.

    Raises RuntimeError if the first model does not go live or the retraining fails, and
    TimeoutError if none is started.
    """
    load(system, "history", folder)
    first = retrain(system.model, "the first model", system.params())
    if first.release is None or first.version is None:
        raise RuntimeError(f"The first {system.model} did not go live: {first.reason}")
    frozen = registry.onnx_file(registry.get(system.model, first.version))
    before = ask(system.model, system.rows_of("stable"), frozen)
    calm = look(system, "stable", folder)
    retrainings.set_params(system.model, system.params())
    since = datetime.now(UTC)
    changed = look(system, "season", folder)
    if changed.action == ASKED:
        retrainings.wait(since, system.model)
    after = ask(system.model, system.rows_of("after"), frozen)
    live = releases.champion(system.model)
    return Season(system, first.version, live, calm, changed, before, after)


def look(system: System, period: str, folder: Path) -> Finding:
    """Load a period, and run the monitor."""
    load(system, period, folder)
    finding = monitor(system.model, window_days=WINDOW_DAYS)
    assert finding is not None, "a model is live"
    return finding


def load(system: System, period: str, folder: Path) -> None:
    """Ingest what happens in a period."""
    path = raw_files.write_lines(system.lines_of(period), folder / f"{period}.jsonl")
    ingest(str(path), system.model)
