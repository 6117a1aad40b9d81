"""The watermark of a table: the newest time that many groups agree on, and that all its sources
have delivered.

A clock that is ahead, or a test event, must not move it: the monitor's window and the hold-out end
there. Nor must a source that is ahead of the others, see `clocks`.
"""

import logging
from dataclasses import dataclass
from datetime import date

import numpy as np
import polars as pl
from deltalake import DeltaTable

from kreislauf.clock import HOUR_MS, when
from kreislauf.lake import delta, storage
from kreislauf.lake.staging import DATE
from models.table import Table

log = logging.getLogger(__name__)

AHEAD_SHARE = 0.01
"""Groups after the watermark are ahead of it if they are fewer than this share of what came in as
long a time before. A shop's nights have more."""
LONGEST_GAP_HOURS = 7 * 24
"""Hours that count of a longer gap: data that starts again after years is believed within hours."""
RECENT_DATES = 28
"""Number of newest dates with rows; what is read has as many rows as the fullest of them."""


@dataclass(frozen=True)
class Watermark:
    """Where the table ends, and what lies ahead of it; times in ms since 1970 UTC."""

    time: int
    """Newest event that many groups agree on, or until when all sources have delivered."""
    newest: int
    """Newest event of all."""
    ahead: int = 0
    """Number of rows after all that many groups agree on."""
    agreed: int | None = None
    """Newest event that many groups agree on, if a source has not delivered until then."""

    def __str__(self) -> str:
        text = f"The data ends at {when(self.time)} (UTC)."
        if self.agreed is not None:
            text += f" What is newer, up to {when(self.agreed)}, waits for a source that is behind."
        if self.ahead:
            text += (
                f" {self.ahead} rows are ahead of it, up to {when(self.newest)}, and too few groups"
                " agree with them: they stay in the table, and count when the data has reached them"
                ". Is a clock wrong?"
            )
        return text


def watermark(table: Table) -> int | None:
    """The watermark of `table`, ms since 1970 UTC; None if it has no rows. What lies ahead of it is
    logged."""
    stored = delta.find(table.name)
    if stored is None:
        return None
    newest = _measured(stored, table)
    if newest is None:
        return None
    if newest.ahead:
        log.warning("Table %s: %s", table.name, newest)
    elif newest.agreed is not None:
        log.info("Table %s: %s", table.name, newest)
    return newest.time


def find(table: Table, version: int) -> Watermark | None:
    """The watermark of `table` at a version; None if it has no rows then. Raises LakeError if there
    is no such version."""
    return _measured(delta.at(table.name, version), table)


def _measured(stored: DeltaTable, table: Table) -> Watermark | None:
    """The watermark; time and group are read of the newest dates' rows, of few dates as a rule."""
    files = delta.files(stored)
    if files.is_empty():
        return None
    heights = files.group_by(date=pl.col(f"partition.{DATE}")).agg(rows=pl.col("num_records").sum())
    with storage.answering(table.name):
        recent = pl.scan_delta(stored).filter(pl.col(DATE) >= first_date(heights))
        counted = hours(recent, table)
        delivered = stored.transaction_version(delivered_id(table.name))
    newest = int(counted["newest"].max())  # type: ignore[arg-type]
    last = last_agreed(counted["hour"].to_numpy(), counted["groups"].to_numpy(), newest)
    ahead = int(counted["rows"][last + 1 :].sum())
    agreed = int(counted["newest"][last])
    if delivered is None or delivered >= agreed:
        return Watermark(agreed, newest, ahead)
    return Watermark(delivered, newest, ahead, agreed)


def delivered_id(name: str) -> str:
    """Transaction id of a table with the time (ms) up to which all sources have delivered that
    still do; a table with one source has none."""
    return f"{name}/delivered"


def first_date(heights: pl.DataFrame) -> date:
    """The first of the newest dates that have as many rows as the fullest recent one, and one date
    more, from the rows of each date."""
    newest_first = heights.sort("date", descending=True).head(RECENT_DATES)
    enough = newest_first["rows"].cum_sum() >= newest_first["rows"].max()
    return newest_first["date"][min(newest_first.height - 1, 1 + int((~enough).sum()))]


def hours(rows: pl.LazyFrame, table: Table) -> pl.DataFrame:
    """Hours with rows, in their order: columns hour (since 1970), groups, rows, and newest (ms)."""
    time = pl.col(table.time)
    counted = rows.group_by(hour=time // HOUR_MS).agg(
        groups=pl.col(table.group).n_unique(), rows=pl.len(), newest=time.max()
    )
    return counted.collect(engine="streaming").sort("hour")


def last_agreed(hours: np.ndarray, groups: np.ndarray, newest: int) -> int:
    """Position of the hour in which the watermark lies.

    `hours` (n,), since 1970 and in their order, had `groups` (n,); `newest` is the newest event
    (ms). The groups after an hour are ahead if they are fewer than `AHEAD_SHARE` of what came in
    the 24 hours up to it, in proportion to the time from its end to `newest`. The watermark is
    where most are lacking (the greatest cumulative sum, as in Page, "Continuous inspection
    schemes", 1954).
    """
    total = np.cumsum(groups)
    day_before = np.searchsorted(hours, hours - 24, side="right")
    recent = total - np.concatenate([[0], total])[day_before]
    gap = _gap(hours, newest)
    after = total[-1] - total
    lacking = AHEAD_SHARE * recent * gap / 24 - after
    if lacking.max() <= 0:
        return len(hours) - 1
    return int(lacking.argmax())


def outweighed(groups: int, hour: int, newest: int) -> float:
    """How many groups a day up to an `hour` may have had, at most, if so many `groups` up to
    `newest` (ms) are enough to be believed; see `last_agreed`."""
    return float(groups * 24 / (AHEAD_SHARE * _gap(np.array(hour), newest)))


def _gap(hour: np.ndarray, newest: int) -> np.ndarray:
    """Hours from the end of an hour to the newest event, as far as they count."""
    return np.clip(newest / HOUR_MS - (hour + 1), 0, LONGEST_GAP_HOURS)
