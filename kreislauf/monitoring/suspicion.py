"""Which fault of the data the newest tails show. Pure functions."""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field
from scipy.stats import binom, t

from kreislauf.clock import HOUR_MS
from kreislauf.monitoring.limits import MIN_WINDOWS
from kreislauf.monitoring.tails import Tail

COLLAPSE = 0.4
"""Loss of the live quality, as a share of its reference, from which on the model has collapsed:
what visitors come back to is found even if ids mean something else."""
REMAPPED_CORRELATION = 0.1
"""Share of the expected label correlation below which ids mean something else: a season that
replaces a third of the assortment and all ways through it leaves more."""
PLACEHOLDER_RATIO = 5.0
"""Frequency of a placeholder, as a multiple of what the most frequent right answer usually has: so
frequent is no fashion."""
NEW_PLACEHOLDER_RATIO = 1.5
"""The same of a new placeholder; more than is asked of a window, because fashions are short."""
NEW_PLACEHOLDER_SHARE = 0.5
"""Share of all new right answers that a new placeholder has: assortments change in many
articles."""
NEW_PLACEHOLDER_REST = 0.4
"""Share of the expected correlation of the answers that are not new, below which it is no
placeholder: where others are popular, one of them may be new."""
PLACEHOLDER_GROUPS = 10
"""Fewest groups with a placeholder: one visitor may look at one article again and again."""
REPEATED = 0.2
"""Rise of the share of repeating rows from which on events are sent twice."""
LONG_ROWS = 0.1
"""Share of the rows in long groups from which on robots write them."""
LONG_ROWS_RATIO = 5.0
"""The same as a multiple of that share in the hold-out."""
LONG_BY_CHANCE = 1e-6
"""Chance of so many long groups below which robots made them: visitors may be busy, and tails are
many."""
CERTAIN = 2.0
"""Standard errors by which a collapse must be beyond `COLLAPSE`, and a label correlation below
`REMAPPED_CORRELATION`."""
VANISHED = 0.1
"""Share of the frequent right answers from which on a category has vanished: in a season a few are
not wanted."""
LIKE_BEFORE = 0.75
"""Share of the expected label correlation above which the other answers are as frequent as before.
"""
REFIT_LOSS = 0.3
"""Relative loss of a refitted baseline from which on there is less to learn, and not only by
chance: tails are small, and judged every hour."""
LESS_TO_LEARN = 0.001
"""Chance that a refitted baseline in a tail without any change falls so low by itself."""


class Fault(BaseModel):
    """A fault that the newest tail shows."""

    model_config = ConfigDict(frozen=True)

    evidence: str = Field(description="A sentence.")
    start: int = Field(description="Where it began at the earliest, ms since 1970 UTC.")
    end: int = Field(description="Newest row, ms since 1970 UTC.")
    meaning: bool = Field(False, description="Whether it looks like another assortment, too.")
    noise: bool = Field(False, description="Whether there is only less to learn.")


def fault(
    tails: Sequence[Tail],
    excluded: Sequence[tuple[int, int]] = (),
    trusted: bool = False,
) -> Fault | None:
    """The fault that any of the `tails` shows, shortest first; None without.

    If a person trusts the newest rows, ids may mean something else, and answers may be new.

    It began in the shortest tail that does not show it, or, if all do, at most as long again before
    the longest one. Stretches that are `excluded` (ms, inclusive) are not there to show anything:
    what began before the end of one began after it.
    """
    rules = [remapped, placeholder, vanished, doubled, robots, less_to_learn]
    if trusted:
        rules = [doubled, robots]
    for rule in rules:
        showing = [tail for tail in tails if rule(tail)]
        if not showing:
            continue
        shortest = showing[0]
        longer = [tail for tail in tails if tail.start < showing[-1].start]
        start = 2 * showing[-1].start - showing[-1].end - 1
        if longer:
            start = longer[0].start
        ends = [last + 1 for _, last in excluded if start <= last < shortest.end]
        return Fault(
            evidence=f"Since {hours(shortest)}: {rule(shortest)}",
            start=max([start, *ends]),
            end=shortest.end,
            meaning=rule in (remapped, vanished),
            noise=rule is less_to_learn,
        )
    return None


def remapped(tail: Tail) -> str:
    """Whether ids seem to mean something else; empty if not."""
    collapsed = tail.live + CERTAIN * tail.error < (1 - COLLAPSE) * tail.reference
    correlation = tail.label_correlation + CERTAIN * tail.correlation_error
    unlike = correlation < REMAPPED_CORRELATION * tail.expected_correlation
    if not (collapsed and unlike):
        return ""
    return (
        f"the live model reaches {1 - tail.loss:.0%} of its usual quality, and other answers are "
        f"frequent than before (correlation {tail.label_correlation:.2f}, expected "
        f"{tail.expected_correlation:.2f}): ids seem to mean something else."
    )


def placeholder(tail: Tail) -> str:
    """Whether one right answer is so frequent that it stands for something else; empty if not."""
    if tail.top_label_groups < PLACEHOLDER_GROUPS:
        return ""
    ratio = tail.top_label / max(tail.top_label_reference, 1e-9)
    new, all_new = tail.new_label_shares
    frequent = new == tail.top_label and new > NEW_PLACEHOLDER_RATIO * tail.top_label_reference
    others_changed = tail.rest_correlation < NEW_PLACEHOLDER_REST * tail.expected_correlation
    if ratio > PLACEHOLDER_RATIO:
        return (
            f"one right answer is {ratio:.0f} times as frequent as the most frequent one usually "
            "is: a placeholder?"
        )
    if frequent and new > NEW_PLACEHOLDER_SHARE * all_new and not others_changed:
        return f"one new answer is {new:.1%} of all right answers: a placeholder?"
    return ""


def vanished(tail: Tail) -> str:
    """Whether a category is not recorded any more, and nothing has come in its place; empty if it
    is."""
    _, new = tail.new_label_shares
    as_before = tail.label_correlation > LIKE_BEFORE * tail.expected_correlation
    if tail.vanished < VANISHED or new > tail.vanished / 2 or not as_before:
        return ""
    return (
        f"{tail.vanished:.0%} of the frequent right answers do not occur any more, and hardly any "
        "new ones do: has a category been lost?"
    )


def doubled(tail: Tail) -> str:
    """Whether events seem to be sent twice; empty if not."""
    rise = tail.repeats - tail.repeats_reference
    if rise < REPEATED or tail.repeats < 2 * tail.repeats_reference:
        return ""
    return (
        f"{tail.repeats:.0%} of the rows repeat the row before them, usually "
        f"{tail.repeats_reference:.0%}: are events sent twice?"
    )


def robots(tail: Tail) -> str:
    """Whether robots seem to write rows; empty if not."""
    limit = max(LONG_ROWS, LONG_ROWS_RATIO * tail.long_rows_reference)
    chance = float(binom.sf(tail.long_groups - 1, tail.groups, tail.long_chance))
    if tail.long_rows < limit or chance > LONG_BY_CHANCE:
        return ""
    return (
        f"{tail.long_rows:.0%} of the rows are in groups as long as hardly any before, usually "
        f"{tail.long_rows_reference:.1%}: robots?"
    )


def less_to_learn(tail: Tail) -> str:
    """Whether a baseline that is refitted on the tail falls with the live model; empty if not."""
    if tail.refit is None or len(tail.history) < MIN_WINDOWS:
        return ""
    mean, spread = tail.usual_refit
    quantile = float(t.ppf(1 - LESS_TO_LEARN, len(tail.history) - 1))
    if tail.refit >= min(mean - quantile * spread, (1 - REFIT_LOSS) * mean):
        return ""
    return (
        f"the live model lost {tail.loss:.0%} of its quality, and a baseline that learns from this "
        f"tail alone falls with it ({tail.refit:.4f}, usually {mean:.4f}): there is less to learn."
    )


def hours(tail: Tail) -> str:
    """How long the tail is."""
    return f"{(tail.end + 1 - tail.start) / HOUR_MS:.0f} h"
