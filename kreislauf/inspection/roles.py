"""Which column of a source is the session, the article, the time and the type of an event."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import polars as pl

from kreislauf.inspection import names, times
from kreislauf.inspection.times import TimeReading
from kreislauf.inspection.traits import Traits, shortened
from models.choices import CHOOSE
from models.mapping_column import ISO

MANY_ROWS = 20
"""Rows from which an id is not the same in all of them."""
MIN_FILLED = 0.5
"""Share of the rows that have a value, beside that of the fullest candidate, from which a column
is a candidate."""
USER_DOUBT = (
    "looks like a user, not a session: nothing in this source looks like one. Its sessions would "
    "be as long as a user's life. Better say `user` and `gap_minutes`, as docs/data.md shows, with "
    "`model: session_recommender_text`."
)
ORDER_DOUBT = "looks like an order: the lines of an order would be a session."
LIST_DOUBT = (
    "It may be in {}, in which a mapping cannot read. Then export one row for each of its entries, "
    "with the article as a column."
)
DAY = r"^\d{8}$|^\d{1,4}[-/.]\d\d?[-/.]\d{1,4}( 00:00:00(\.0+)?)?$"
"""Text that is a day, without a time of day."""
CLOCK = r"(?i)^\s*\d\d?:\d\d(:\d\d([.,]\d+)?)?(\s?[ap]\.?m\.?)?(\s?(z|utc|[+-]\d\d:?\d\d))?\s*$"
"""Text that is a time of day, without a day."""
NAMELESS_DOUBT = "No name says which column has {}. These could, by their values:"
WHAT = {"session": "the session", "aid": "the article"}
"""What columns of the table are called in sentences."""
NOTHING_DOUBT = "Neither names nor values say which column has {}."


@dataclass(frozen=True)
class Reading:
    """One way in which a column of the table may come from the source."""

    spec: dict[str, Any]
    """As in a mapping, with CHOOSE where a choice is open."""
    assumed: dict[str, Any]
    """The same with the first that fits for each choice."""
    notes: dict[tuple[str, ...], str]
    """Comments on keys of `spec`, by their places."""

    @property
    def source(self) -> str | None:
        """The source's column."""
        return self.spec.get("from") or self.spec.get("user")

    @property
    def is_open(self) -> bool:
        """Whether something in it is to be chosen."""
        return self.spec != self.assumed


@dataclass(frozen=True)
class Role:
    """Where a column of the table comes from, as far as names and values say."""

    column: str
    readings: list[Reading]
    """All that fit; none if nothing does."""
    doubts: list[str]
    """Sentences for the comment above it."""
    is_guess: bool = False
    """Whether nothing but values speaks for the readings, so that not even a single one is sure."""

    @property
    def is_open(self) -> bool:
        """Whether a person has to choose the column."""
        return self.is_guess or len(self.readings) != 1

    @property
    def sources(self) -> list[str]:
        """The source's columns among which is to be chosen, or the chosen one."""
        return [reading.source for reading in self.readings if reading.source]


def plain_reading(traits: Traits) -> Reading:
    """A column as it is."""
    return Reading({"from": traits.name}, {"from": traits.name}, {})


def session(columns: list[Traits], taken: Collection[str]) -> Role:
    """The column that says which rows are one session."""
    tiers = ((names.SESSIONS, ""), (names.USERS, USER_DOUBT), (names.ORDERS, ORDER_DOUBT))
    return _by_name("session", columns, taken, tiers)


def article(columns: list[Traits], taken: Collection[str]) -> Role:
    """The column that has the article's id."""
    tiers = ((names.ARTICLES, ""), (names.PLAIN_IDS, "may be the id of something else."))
    return _by_name("aid", columns, taken, tiers)


def _by_name(
    column: str,
    columns: list[Traits],
    taken: Collection[str],
    tiers: tuple[tuple[frozenset[str], str], ...],
) -> Role:
    """The candidates of the first tier of names that has some; or else all that may be ids."""
    for tier, doubt in (({column}, ""), *tiers):
        candidates = fullest([t for t in columns if t.plain in tier and t.name not in taken])
        if candidates:
            doubts = [f"{t.name} {doubt}" for t in candidates if doubt]
            if len(candidates) > 1:
                doubts.append(f"Several columns may be {WHAT[column]}. Take one of them:")
            return Role(column, [plain_reading(t) for t in candidates], doubts)
    by_value = [
        t
        for t in columns
        if t.may_be_an_id
        and t.name not in taken
        and not t.times
        and (t.different > 1 or len(t.texts) < MANY_ROWS)
    ]
    readings = [plain_reading(t) for t in by_value]
    doubt = NAMELESS_DOUBT if readings else NOTHING_DOUBT
    return Role(column, readings, [doubt.format(WHAT[column])], is_guess=True)


def fullest(candidates: list[Traits]) -> list[Traits]:
    """The candidates without those that are rather empty beside the others."""
    most = max((t.filled for t in candidates), default=0)
    return [t for t in candidates if t.filled >= MIN_FILLED * most]


def time(columns: list[Traits], column: str) -> Role:
    """The column that has the time of an event, and how it is read."""
    readable = [t for t in columns if t.times]
    tiers: list[Callable[[Traits], bool]] = [
        lambda t: t.name == column,
        lambda t: t.plain in names.TIMES,
        lambda t: t.plain not in names.IDS,
    ]
    for is_in in tiers:
        candidates = fullest([t for t in readable if is_in(t)])
        # A day says less than a time of the same event.
        candidates = [t for t in candidates if not _has_days_only(t)] or candidates
        if candidates:
            doubts = [doubt for t in candidates for doubt in _time_doubts(t, columns)]
            if len(candidates) > 1:
                doubts.append("Several columns may be the time of the event. Take one of them:")
            return Role(column, [time_reading(t) for t in candidates], doubts)
    return Role(column, _unreadable_times(columns), ["No value was read as a time."])


def _time_doubts(traits: Traits, columns: list[Traits]) -> list[str]:
    best = traits.times[0]
    doubts = []
    if best.share < 1:
        doubts.append(
            f"Read as {best.name}, {1 - best.share:.0%} of the values of {traits.name} are no "
            "times from 2000 until today."
        )
    if _has_days_only(traits):
        doubts.append(f"{traits.name} has days only: the events of a day have no order.")
        doubts += [
            f"{traits.name} has the day, and {t.name} the time of day: the two belong together. "
            "Export them as one column, because a mapping reads a time from one."
            for t in columns
            if _has_clocks_only(t)
        ]
    return doubts


def _has_days_only(traits: Traits) -> bool:
    return bool(traits.texts.drop_nulls().str.contains(DAY).all())


def _has_clocks_only(traits: Traits) -> bool:
    return not traits.is_empty and bool(traits.present.str.contains(CLOCK).all())


def _unreadable_times(columns: list[Traits]) -> list[Reading]:
    """Columns whose names are those of times, though no value is read as one."""
    return [
        Reading(
            {"from": t.name, "unit": CHOOSE},
            {"from": t.name, "unit": "ms"},
            {("unit",): "s, ms, us or ns; or write `format` and `zone` instead"},
        )
        for t in columns
        if t.plain in names.TIMES
    ]


def time_reading(traits: Traits) -> Reading:
    """How a column of times is read; where several ways fit, with a choice."""
    ways = traits.times
    spec: dict[str, Any] = {"from": traits.name}
    notes: dict[tuple[str, ...], str] = {}
    for key in ("unit", "format"):
        offered = [way for way in ways if getattr(way, key)]
        if offered:
            spec[key] = offered[0].name
        if offered and len(ways) > 1:
            spec[key] = CHOOSE
            notes[key,] = "\n".join(["one of", *(_shown(way, traits) for way in offered)])
    assumed = {"from": traits.name, "unit" if ways[0].unit else "format": ways[0].name}
    zoneless = [way.zoneless for way in ways if way.zoneless is not None]
    if zoneless:
        spec["zone"] = CHOOSE
        assumed["zone"] = "UTC"
        notes["zone",] = (
            f"{shortened(zoneless[0])} does not say its time zone: UTC, or the shop's, such as "
            "Europe/Berlin"
        )
        if traits.shape == "times":
            notes["zone",] = (
                "the times are stored without a time zone: UTC, which is what is taken without a "
                "mapping, or the shop's, such as Europe/Berlin"
            )
    return Reading(spec, assumed, notes)


def _shown(way: TimeReading, traits: Traits) -> str:
    """A way to read times, with a value of which another way makes another time."""
    ways = pl.DataFrame([each.times.alias(str(i)) for i, each in enumerate(traits.times)])
    differs = ways.select(pl.concat_list(pl.all()).list.n_unique() > 1).to_series()
    is_shown = differs & way.times.is_not_null()
    place = (is_shown if is_shown.any() else way.times.is_not_null()).arg_max() or 0
    moment = times.as_text(way.times[place])
    name = way.unit or f"'{way.format}'"
    return f"  {name} (then {traits.present[place]} is {moment}; fits {way.share:.0%} of the rows)"


def is_stored_time(reading: Reading, traits: Traits) -> bool:
    """Whether a time needs no unit and no format, because the source stores it as such."""
    return traits.shape == "times" and reading.spec.get("format") == ISO
