"""What a person says of a stretch of a table: models learn from it, or do not, whatever the monitor
says."""

from datetime import UTC, datetime

from prefect import flow, get_run_logger

from kreislauf.clock import in_utc, when
from kreislauf.lake import exclusions
from kreislauf.people import Text
from models import spec
from tasks.page import draw_page


@flow
def trust(
    start: datetime,
    who: Text,
    reason: Text,
    end: datetime | None = None,
    trusted: bool = True,
    model: str = "session_recommender",
) -> exclusions.HumanVerdict:
    """Trust rows that the monitor left out, or leave out rows that it trusts.

    It holds for every later training, gate and monitor run. A newer verdict of a person replaces
    it, moment by moment. To run it again is harmless.

    Args:
        start: First minute, as the monitor's pages show it; UTC where no time zone is given.
        who: Name of the person who says so.
        reason: Why, in a sentence.
        end: Last minute; default: the shop stays as it is since `start`. The monitor follows that
            until a version is live that was judged on such rows: what it distrusts then is
            something new. Rows that are not trusted need an end: what comes later is the monitor's
            to judge.
        trusted: Whether models learn from these rows.
        model: Name of the model type whose table it is about.

    Returns:
        The verdict, as every run reads it.

    Raises:
        ValueError: `end` is before `start`, or rows without an end are not trusted.
    """
    table = spec.load(model).table.name
    last = None
    if end is None and not trusted:
        raise ValueError(
            "Rows that are not trusted need an end, or nothing would ever be learnt again: give "
            "the present time. The monitor leaves out what follows as long as the fault goes on."
        )
    if end is not None:
        if in_utc(end) < in_utc(start):
            raise ValueError(f"end, {end}, is before start, {start}: give the earlier one first.")
        last = minute(end) + 59_999
    verdict = exclusions.HumanVerdict(
        table=table,
        start=minute(start),
        end=last,
        trusted=trusted,
        who=who,
        reason=reason,
        at=int(datetime.now(UTC).timestamp() * 1000),
    )
    exclusions.record_verdict(verdict)
    draw_page(model)
    left_out = exclusions.intervals(table)
    get_run_logger().info(f"{verdict.sentence} {describe(left_out)}")
    return verdict


def minute(time: datetime) -> int:
    """Beginning of a time's minute, ms since 1970 UTC."""
    return int(in_utc(time).timestamp()) // 60 * 60_000


def describe(stretches: list[exclusions.Stretch]) -> str:
    """What is left out now, for people."""
    if not stretches:
        return "Nothing is left out now."
    parts = []
    for start, end in stretches:
        last = "on"
        if end < exclusions.NO_END:
            last = f"to {when(end)}"
        parts.append(f"from {when(start)} {last}")
    return f"Left out now: {', '.join(parts)}."
