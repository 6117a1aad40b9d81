"""Clocks of sources: how far each folder, prefix or topic has delivered the events of a table.

Several sources land in one table, each with a lag of its own. Their clocks are Delta transaction
ids of the table, which the commits of the loads set. So they cost a load no read, and a look at
them the same however many loads there were.
"""

import math
import time
from collections.abc import Collection
from dataclasses import asdict, dataclass

import polars as pl
from deltalake import DeltaTable

from kreislauf.clock import DAY_MS, HOUR_MS
from kreislauf.lake import delta, open_tables, storage, watermarks
from kreislauf.lake.staging import Stage
from models.table import Table

COUNTED_ROWS = 100_000
"""Rows of a load, about, from which groups are counted, in whole groups."""
MISSED = 3
"""Usual lags after which a source has stopped: one that delivers daily is three days behind."""
SHORTEST_LIMIT = DAY_MS
"""Time (ms) that any source may be behind the others: a night is no stop."""
LONGEST_WAIT = 2 * DAY_MS
"""Longest usual lag (ms) of a source that the watermark waits for. A weekly file comes late."""
HALF_LIFE = 3 * DAY_MS
"""Time (ms) of the data after which a usual lag that was not seen again counts half."""


@dataclass(frozen=True)
class Clock:
    """How far a source has delivered."""

    newest: int
    """Newest event that enough of its groups agree on, ms since 1970 UTC; not after `loaded`."""
    loaded: int
    """Time of its last load, ms since 1970 UTC."""
    groups: int
    """Groups that it delivered in the day up to `newest`, about."""
    lag: int | None = None
    """How far (ms) it usually is behind the others when it delivers; None before it has delivered
    beside others."""
    pause: int | None = None
    """How long (ms of the wall clock) it usually is from one of its loads to the next; None before
    the second."""


@dataclass(frozen=True)
class Source:
    """A source of a table, beside the others."""

    name: str
    clock: Clock
    behind: int
    """How far (ms) it is behind the source that is furthest."""
    silent: int
    """How long ago (ms) its last load is."""

    @property
    def is_late(self) -> bool:
        """Whether it delivered beside others, and does so no more."""
        return self.behind > _limit(self.clock.lag)

    @property
    def stopped(self) -> bool:
        """Whether it delivers no more: it is late, or nothing comes any more of what was loaded as
        it happened. Data of long ago, in a replay, says nothing about today."""
        as_it_happened = self.clock.loaded - self.clock.newest <= LONGEST_WAIT
        return self.is_late or (as_it_happened and self.silent > _limit(self.clock.pause))


def _limit(length: int | None) -> float:
    """How long (ms) it may take before a source counts as stopped, if this `length` is usual."""
    if length is None:
        return math.inf
    return max(SHORTEST_LIMIT, MISSED * length)


def sources(name: str) -> list[Source]:
    """The sources of a table, the furthest first; neither rows nor accounts are read. Raises
    LakeUnreachable."""
    stored = delta.find(name)
    if stored is None:
        return []
    with storage.answering(name):
        clocks = of(stored)
    furthest = max((clock.newest for clock in clocks.values()), default=0)
    now = int(time.time() * 1000)
    places = [
        Source(key, clock, furthest - clock.newest, now - clock.loaded)
        for key, clock in clocks.items()
    ]
    return sorted(places, key=lambda source: (source.behind, source.name))


def of(stored: DeltaTable) -> dict[str, Clock]:
    """The clocks of a table, by the names of its sources."""
    head = _head(open_tables.name_of(stored))
    values: dict[str, dict[str, int]] = {}
    for key, value in open_tables.transactions(stored).items():
        if key.startswith(head):
            field, source = key.removeprefix(head).split("/", 1)
            values.setdefault(source, {})[field] = value
    return {source: Clock(**numbers) for source, numbers in values.items()}


def hours(stage: Stage, table: Table) -> pl.DataFrame:
    """The newest hours of a load: columns hour (since 1970), groups (about) and newest (ms).

    The stage is dealt out: a group's rows of a date share a bucket, and so memory is bounded.
    """
    heights = pl.DataFrame({"date": list(stage.rows), "rows": list(stage.rows.values())})
    if heights.is_empty():
        return pl.DataFrame(schema={"hour": pl.Int64, "groups": pl.UInt32, "newest": pl.Int64})
    first = watermarks.first_date(heights)
    height = heights.filter(pl.col("date") >= first)["rows"].sum()
    share = max(1, round(height / COUNTED_ROWS))
    counted = []
    for day in stage.rows:
        if day >= first:
            for rows, _ in stage.buckets(day):
                drawn = rows.lazy().filter(pl.col(table.group).hash(0) % share == 0)
                counted.append(watermarks.hours(drawn, table))
    by_hour = (
        pl.concat(counted)
        .group_by("hour")
        .agg(groups=pl.col("groups").sum() * share, newest=pl.col("newest").max())
    )
    return by_hour.sort("hour")


def moved(
    clock: Clock | None, load: pl.DataFrame, others: Collection[Clock], now: int
) -> Clock | None:
    """The clock of a source after a load with these `hours`, at `now` (ms); None if it never had a
    row.

    Groups that are too few for how far they are ahead do not move it. They make what came before
    count for less, so that more of them do.
    """
    if clock is not None:
        hour = clock.newest // HOUR_MS
        before = pl.DataFrame(
            {"hour": hour, "groups": clock.groups, "newest": clock.newest}, load.schema
        )
        both = pl.concat([before, load.filter(pl.col("hour") >= hour)]).group_by("hour")
        load = both.agg(pl.sum("groups"), pl.max("newest")).sort("hour")
    if load.is_empty():
        return None
    times, groups = load["hour"].to_numpy(), load["groups"].to_numpy().astype(int)
    furthest = int(load["newest"].max())  # type: ignore[arg-type]
    last = watermarks.last_agreed(times, groups, furthest)
    newest = min(int(load["newest"][last]), now)
    day = float(groups[: last + 1][times[: last + 1] > times[last] - 24].sum())
    if clock is None:
        return Clock(newest, now, int(day))
    passed = int(times[last] - times[0])
    if passed < 24:
        day -= clock.groups * passed / 24
    if last == 0 and len(times) > 1:
        day -= watermarks.outweighed(int(groups[1:].sum()), int(times[0]), furthest)
    newest = max(newest, clock.newest)
    lag = clock.lag
    if others and newest > clock.newest:
        behind = max(0, max(c.newest for c in others) - clock.newest)
        lag = _usual(lag, behind, newest - clock.newest)
    silent = now - clock.loaded
    return Clock(newest, now, max(0, int(day)), lag, _usual(clock.pause, silent, silent))


def _usual(before: int | None, seen: int, passed: int) -> int:
    """What is usual (ms), if something else was `before`, and `passed` ms ago.

    What was not seen again counts half after each `HALF_LIFE`. A stop counts as the shortest that
    there is, so that a source that has become slower is reported once.
    """
    faded = int((before or 0) * 0.5 ** (passed / HALF_LIFE))
    return int(max(min(seen, _limit(before)), faded))


def delivered(clocks: Collection[Clock]) -> int | None:
    """The time (ms) up to which all sources have delivered for which the watermark waits; None if
    there is one source only."""
    if len(clocks) < 2:
        return None
    furthest = max(clock.newest for clock in clocks)
    waited_for = [
        clock.newest
        for clock in clocks
        if clock.lag is not None
        and clock.lag <= LONGEST_WAIT
        and furthest - clock.newest <= _limit(clock.lag)
    ]
    return min([furthest, *waited_for])


def progress(
    stored: DeltaTable, source: str, load: pl.DataFrame, now: int
) -> tuple[int | None, dict[str, int]]:
    """The newest event (ms) of a source after a load with these `hours`, None without a row, and
    the transaction ids that say so."""
    name = open_tables.name_of(stored)
    clocks = of(stored)
    others = [clock for key, clock in clocks.items() if key != source]
    clock = moved(clocks.get(source), load, others, now)
    if clock is None:
        return None, {}
    values = {
        f"{_head(name)}{field}/{source}": value
        for field, value in asdict(clock).items()
        if value is not None
    }
    together = delivered([*others, clock])
    if together is not None:
        key = watermarks.delivered_id(name)
        # It never goes back: not for a source that starts, and not for one that comes back.
        values[key] = max(together, stored.transaction_version(key) or together)
    return clock.newest, values


def _head(name: str) -> str:
    """How the transaction ids of the clocks of a table begin; field and source follow."""
    return f"{name}/clock/"
