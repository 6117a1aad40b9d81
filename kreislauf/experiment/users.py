"""What the users of an experiment did, by the arm that they were assigned to.

Who answered does not matter: a challenger that is too slow is replaced by the fallback, and what
its users then do is what they get from it.

Left out, and counted, are answers to nobody in particular; users who were in both arms; and users
with more than `BUSIEST` answers on a day, who are no people. Answers younger than `MATURITY_MS` do
not count yet, because people may still react to them.
"""

from collections.abc import Sequence
from typing import NamedTuple

import polars as pl
from pydantic import BaseModel, ConfigDict

from kreislauf import exposures, lake
from kreislauf.clock import DAY_MS, HOUR_MS
from kreislauf.experiment.effect import Moments
from kreislauf.experiment.running import Running
from kreislauf.exposures import ARMS, MATURITY_MS, Arm, Kind

HISTORY_DAYS = 14
"""Days before an experiment in which users are known already."""
BUSIEST = 500
"""Most answers of a person on a day."""
NAMES = ("user", "request_id")
BEFORE = "_before"
"""End of the names of columns with what was before the experiment."""
SLICES = {
    "new users": pl.col(f"answers{BEFORE}") == 0,
    "users with 1 to 9 answers before": pl.col(f"answers{BEFORE}").is_between(1, 9),
    "users with 10 answers before or more": pl.col(f"answers{BEFORE}") >= 10,
}
"""Groups of users, by what is known from before the experiment, so that it cannot change them."""
CLOCK_MS = DAY_MS
"""How much the clock of who writes releases may be ahead of the gateway's."""


class Counts(BaseModel):
    """Users and answers, in both arms together where nothing else is said."""

    model_config = ConfigDict(frozen=True)

    assigned: dict[str, int]
    """Users who were assigned to each arm, whoever answered them."""
    answered: dict[str, int]
    """Users whom the version of their arm has answered at least once."""
    answers: int
    """Answers that count."""
    anonymous_answers: int
    """Answers to nobody in particular, which do not count."""
    users_in_both: int
    """Users who were in both arms, and do not count."""
    busy_users: int
    """Users with more than `BUSIEST` answers on a day, who do not count."""


class Observation(NamedTuple):
    """What was seen of an experiment."""

    begin: int
    """Time of the first answer: ms since 1970 UTC."""
    until: int
    """Time until which answers count."""
    counts: Counts
    arms: dict[Arm, dict[Kind, Moments]]
    """Of each arm, the moments of each kind of reaction."""
    slices: dict[str, dict[Arm, Moments]]
    """Of each slice and arm, the moments of the KPI."""


def until(maturity: int = MATURITY_MS) -> int | None:
    """Time (ms) until which answers count; None without answers. Raises LakeUnreachable."""
    shown = lake.watermark(exposures.EXPOSURES)
    taken = lake.watermark(exposures.FEEDBACK)
    if shown is None:
        return None
    if taken is None:
        return shown - maturity
    return min(shown, taken) - maturity


def observe(running: Running, last: int) -> Observation | None:
    """What the users of the experiment did until the time `last` (ms); None if none was shown
    anything. Raises LakeError."""
    times = _times(running, last)
    if times is None:
        return None
    began, begin, answers = times
    kinds = running.terms.kinds
    with lake.reading(exposures.EXPOSURES):
        shown = _answers(running.model, begin, last).filter(_is_inside(running))
        before = _answers(running.model, began - HISTORY_DAYS * DAY_MS, began - 1)
        users = _by_user(_with_reactions(shown, running.model, begin, kinds), kinds)
        start = began - HISTORY_DAYS * DAY_MS
        former = _with_reactions(before, running.model, start, kinds, began + DAY_MS)
        sums = [pl.len().alias("answers"), pl.col(kinds).sum()]
        former = former.group_by("user").agg(sums).rename(lambda name: name + BEFORE)
        table = users.join(former, left_on="user", right_on=f"user{BEFORE}", how="left").collect(
            engine="streaming"
        )
    return _observation(table.fill_null(0), kinds, (begin, last), answers)


def history(model: str, last: int, kind: Kind) -> tuple[Moments, float] | None:
    """What users did in the newest `HISTORY_DAYS` until `last` (ms), as the moments of one arm, and
    in how many days; None if there are no answers to anybody. Raises LakeError."""
    first = last - HISTORY_DAYS * DAY_MS
    with lake.reading(exposures.EXPOSURES):
        shown = _answers(model, first, last)
        users = _by_user(_with_reactions(shown, model, first, (kind,)), (kind,))
        people = users.filter(pl.col("busiest") <= BUSIEST).collect(engine="streaming")
        begin = shown.select(pl.col("ts").min()).collect(engine="streaming").item()
    if people.is_empty():
        return None
    days = max(last - begin, HOUR_MS) / DAY_MS
    columns = pl.col("answers", kind)
    return _moments(people.with_columns((columns * 0).name.suffix(BEFORE)), kind), days


def _answers(model: str, first: int, last: int) -> pl.LazyFrame:
    """Answers of the model type between two times (ms), both inclusive."""
    return lake.scan(exposures.EXPOSURES, start=first, end=last + 1).filter(
        pl.col("model") == model
    )


def _is_inside(running: Running) -> pl.Expr:
    """Which answers belong to the experiment since the last change of its share."""
    in_force = pl.col("release").is_between(running.number, running.release.number)
    return in_force & pl.col("arm").is_not_null()


def _times(running: Running, last: int) -> tuple[int, int, int] | None:
    """Time of the first answer of the experiment, of the first one with this share, and the number
    of the latter; None without any."""
    first = 0
    if running.first.at is not None:
        first = running.first.at - CLOCK_MS
    of_experiment = pl.col("release").is_between(running.first.number, running.release.number)
    inside = _is_inside(running)
    with lake.reading(exposures.EXPOSURES):
        began, begin, answers = (
            _answers(running.model, first, last)
            .select(
                began=pl.col("ts").filter(of_experiment).min(),
                begin=pl.col("ts").filter(inside).min(),
                answers=inside.sum(),
            )
            .collect(engine="streaming")
            .row(0)
        )
    if begin is None:
        return None
    return began, begin, answers


def _with_reactions(
    shown: pl.LazyFrame, model: str, first: int, kinds: Sequence[Kind], last: int | None = None
) -> pl.LazyFrame:
    """Answers to somebody with a column for each kind: whether there was such a reaction, from the
    time `first` (ms) until `last`. User and request are numbers, which take less memory: of ten
    million texts no two have the same one but in a case of a hundred thousand."""
    named = shown.filter(pl.col("user") != "").with_columns(pl.col(NAMES).hash(0))
    if lake.watermark(exposures.FEEDBACK) is None:
        return named.with_columns(pl.lit(False).alias(kind) for kind in kinds)
    taken = lake.scan(exposures.FEEDBACK, start=first, end=last)
    taken = taken.filter(pl.col("model") == model).with_columns(pl.col("request_id").hash(0))
    flags = [(pl.col("kind") == kind).any().alias(kind) for kind in kinds]
    reactions = taken.group_by("request_id").agg(flags)
    joined = named.join(reactions, on="request_id", how="left")
    return joined.with_columns(pl.col(kinds).fill_null(False))


def _by_user(answers: pl.LazyFrame, kinds: Sequence[Kind]) -> pl.LazyFrame:
    """A row for each user: answers and reactions, most answers on a day, whether in each arm, and
    whether a version has answered, and not only the fallback."""
    by_day = answers.group_by("user", day=pl.col("ts") // DAY_MS).agg(
        pl.len().alias("answers"),
        pl.col(kinds).sum(),
        champion=(pl.col("arm") == "champion").any(),
        challenger=(pl.col("arm") == "challenger").any(),
        is_answered=(pl.col("variant") != "fallback").any(),
    )
    return by_day.group_by("user").agg(
        pl.col("answers").max().alias("busiest"),
        pl.col("answers", *kinds).sum(),
        pl.col(*ARMS, "is_answered").any(),
    )


def _observation(
    users: pl.DataFrame, kinds: Sequence[Kind], times: tuple[int, int], answers: int
) -> Observation:
    """Of users and what they did before, of whose `answers` some were to nobody."""
    is_busy = pl.col("busiest") > BUSIEST
    in_both = pl.all_horizontal(ARMS)
    in_one = users.filter(~in_both)
    people = in_one.filter(~is_busy)
    counts = Counts(
        assigned=_by_arm(in_one),
        answered=_by_arm(in_one.filter("is_answered")),
        answers=people["answers"].sum(),
        anonymous_answers=answers - users["answers"].sum(),
        users_in_both=users.height - in_one.height,
        busy_users=in_one.height - people.height,
    )
    arms = {arm: {kind: _moments(people.filter(arm), kind) for kind in kinds} for arm in ARMS}
    slices = {
        name: {arm: _moments(people.filter(arm, of_slice), kinds[0]) for arm in ARMS}
        for name, of_slice in SLICES.items()
    }
    return Observation(*times, counts, arms, slices)


def _by_arm(users: pl.DataFrame) -> dict[str, int]:
    """Number of users of each arm."""
    return {arm: int(users[arm].sum()) for arm in ARMS}


def _moments(users: pl.DataFrame, kind: Kind) -> Moments:
    columns = (kind, "answers", f"{kind}{BEFORE}", f"answers{BEFORE}")
    return Moments.of(users.select(pl.col(columns).cast(pl.Float64)).to_numpy())
