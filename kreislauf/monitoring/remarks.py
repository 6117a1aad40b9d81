"""What somebody should look at, though it changes no verdict: each a sentence with its cure."""

import numpy as np
import polars as pl

from kreislauf import exposures, lake
from kreislauf.clock import DAY_MS, when
from kreislauf.exposures import MATURITY_MS
from kreislauf.lake.staging import date_of
from kreislauf.monitoring import inputs
from kreislauf.monitoring.feedback import HISTORY_DAYS
from kreislauf.monitoring.window import COUNTED_ROWS, TrustedRows
from models.spec import ModelSpec
from models.table import Table

LONG_GROUP = 500
"""Rows above which a group is probably a bot's; the recommender learns from no more of a session.
"""
LONG_SHARE = 0.01
"""Share of the rows from which on such groups are named."""
RETURNING = 0.8
"""Share of a day's groups that were there on the day before, from which on ids restart."""
DAY_GROUPS = 30
"""Fewest groups of a day that is compared with the day before."""
MISSING = 20.0
"""Reactions that should have come and have not, from which on feedback has stopped: chance alone
gives that once in 10^9 times."""


def of_newest(model_type: ModelSpec, days: float, end: int | None) -> list[str]:
    """Remarks on the newest days of the model type's table that can be trusted, up to its watermark
    `end` (ms)."""
    if end is None:
        return []
    table = model_type.table
    rows = inputs.trusted_rows(model_type)
    with lake.reading(table):
        return of_rows(table, rows, end + 1 - int(days * DAY_MS), end)


def of_rows(table: Table, rows: TrustedRows, start: int, end: int) -> list[str]:
    """Remarks on the rows from `start` to `end` (ms, inclusive), read once in bounded memory; none
    on lasting groups, such as customers."""
    if table.lasting:
        return []
    share = max(1, round(rows.count(start, end) / COUNTED_ROWS))
    stretch = rows.between(start, end)
    # A large group is among the rows that are drawn, wherever they are drawn; a day's groups are
    # compared with the day before whole.
    drawn_rows = stretch.filter(pl.struct(table.key).hash(0) % share == 0)
    drawn_groups = stretch.filter(pl.col(table.group).hash(0) % share == 0)
    heights, days = pl.collect_all(
        [
            drawn_rows.group_by(table.group).agg(rows=pl.len() * share),
            drawn_groups.select(table.group, date=date_of(pl.col(table.time))).unique(),
        ],
        engine="streaming",
    )
    return [*long_groups(heights, table.group), *restarting_ids(days, table.group)]


def long_groups(heights: pl.DataFrame, group: str) -> list[str]:
    """A remark if few groups have many of the rows; `heights` has the columns `group` and rows."""
    count = int(heights["rows"].sum())
    long = heights.filter(pl.col("rows") > LONG_GROUP).sort("rows", descending=True)
    held = int(long["rows"].sum())
    if not count or held < LONG_SHARE * count:
        return []
    largest = long.row(0, named=True)
    return [
        f"{long.height} {group}s with more than {LONG_GROUP} rows (the largest: "
        f"{largest[group]}, {largest['rows']} rows) hold {held / count:.0%} of all rows: probably "
        "a bot. Keep it from the shop's tracking, or limit what a visitor may send. The rows stay "
        "in the lake."
    ]


def restarting_ids(days: pl.DataFrame, group: str) -> list[str]:
    """A remark if the same ids come every day; `days` has the columns `group` and date, a row for
    each group on each of its days."""
    sizes = days.group_by("date").agg(groups=pl.len())
    before = days.with_columns(date=pl.col("date").dt.offset_by("1d"))
    both = days.join(before, on=[group, "date"]).group_by("date").agg(both=pl.len())
    sizes_before = sizes.select(pl.col("date").dt.offset_by("1d"), groups_before="groups")
    pairs = sizes.join(sizes_before, on="date").join(both, on="date", how="left")
    smaller = pl.min_horizontal("groups", "groups_before")
    shares = pairs.filter(smaller >= DAY_GROUPS).select(pl.col("both").fill_null(0) / smaller)
    if shares.height < 2:
        return []
    share = float(np.median(shares.to_numpy()))
    if share < RETURNING:
        return []
    return [
        f"{group.capitalize()} ids seem to restart: {share:.0%} of a day's {group}s have rows on "
        "the day before, too. So strangers become one. Make the ids unique, for example with the "
        "date in front, and ingest the files into a new lake."
    ]


def of_feedback(model: str, newest_row: int) -> list[str]:
    """Remarks on answers and reactions that stopped; `newest_row` (ms) is the newest of the table
    that the model learns from. None where nothing was ever recorded."""
    shown = lake.watermark(exposures.EXPOSURES)
    taken = lake.watermark(exposures.FEEDBACK)
    if shown is None:
        return []
    if newest_row - shown > DAY_MS:
        return [
            f"The last answer of the gateway in the lake is of {when(shown)}, "
            f"{days_between(shown, newest_row)} before the newest row. Is the gateway asked, and "
            "does the flow collect run?"
        ]
    if taken is None or shown - taken <= DAY_MS:
        return []
    return _stopped(model, taken, shown)


def _stopped(model: str, taken: int, shown: int) -> list[str]:
    """A remark if the answers since the last reaction should have got some."""
    first = taken - HISTORY_DAYS * DAY_MS
    of_model = pl.col("model") == model
    time = pl.col("ts")
    with lake.reading(exposures.EXPOSURES):
        answers = lake.scan(exposures.EXPOSURES, start=first).filter(of_model)
        reactions = lake.scan(exposures.FEEDBACK, start=first).filter(of_model)
        counts, clicked = pl.collect_all(
            [
                answers.select(
                    before=(time <= taken).sum(), after=(time <= shown - MATURITY_MS).sum()
                ),
                reactions.select(pl.col("request_id").n_unique()),
            ],
            engine="streaming",
        )
    before, until = counts.row(0)
    after = until - before
    expected = clicked.item() / max(before, 1) * after
    if expected < MISSING:
        return []
    return [
        f"The last feedback is of {when(taken)}, {days_between(taken, shown)} before the last "
        f"answer. About {expected:.0f} of the {after} answers since should have got some. Does the "
        "shop still send it, and with the request ids of the answers?"
    ]


def days_between(first: int, last: int) -> str:
    """The time between two times (ms), in days."""
    return f"{(last - first) / DAY_MS:.1f} days"
