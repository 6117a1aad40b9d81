"""What the newest tails leave undecided: is a change too young, or does it last? Pure functions."""

from collections.abc import Sequence

import numpy as np

from kreislauf.clock import when
from kreislauf.monitoring.limits import MIN_WINDOWS
from kreislauf.monitoring.suspicion import CERTAIN, hours
from kreislauf.monitoring.tails import Tail

SHARP_LOSS = 0.1
"""Loss of the live quality, as a share of its reference, that is worth a training at once."""
SHARP_DEVIATION = 3.0
"""Standard errors by which such a loss must differ from none."""
OLDER_LOSS = 0.65
"""Share of a tail's loss from which on its older half says that the change lasts: it is older than
four fifths of the tail then. A training leaves a hold-out of the newest day and has to learn from
what came before it."""
WINDOW_LOSS = 0.5
"""Share of a tail's loss from which on a window says that the change is older than its half."""
LONG_WINDOW = 2
"""Length of a window, in those of the longest tail, from which on it says how old a change is."""
LEARNABLE_LOSS = 0.25
"""Loss of the live quality from which on a baseline that falls less says that a training helps."""
OLD_LOSS = 0.9
"""Loss of the longest tail, as a share of that of a tail, from which on the change is nearly as old
as the longest."""
UNLIKE_LOSS = 0.3
"""Loss of the live quality from which on other frequent answers may be other ids."""
UNLIKE_CORRELATION = 0.2
"""Share of the expected label correlation below which they may be."""
FELL_BEFORE = 0.6
"""Loss of a tail that is twice as long, as a share of the loss of a tail, from which on the change
is older than the tail."""


def unjudged(
    tails: Sequence[Tail], excluded: Sequence[tuple[int, int]], start: int, end: int
) -> str:
    """Why a training waits: after the newest stretch that is left out (ms, inclusive) too little
    has come to say that the fault is over. Empty if enough has, or if nothing is left out in the
    longest tail, from `start` to `end` (ms).

    A fault was seen in a tail of half of what was left out, or less. So it is over when as long a
    time is well.
    """
    faults = [(last, first) for first, last in excluded if start <= last <= end]
    if not faults:
        return ""
    last, first = max(faults)
    enough = min((last - first) // 2, (end - start) // 2)
    if end - last >= enough and any(tail.start >= first for tail in tails):
        return ""
    return (
        f"What came since {when(last)} is too little to say that the fault is over that was left "
        "out until then."
    )


def young_change(tails: Sequence[Tail]) -> str:
    """Why a training waits: the quality fell so lately that nothing can say yet whether a training
    would learn from a fault. Empty if it did not."""
    sharp = [tail for tail in tails if sharp_loss(tail)]
    if not sharp or lasting_loss(tails):
        return ""
    return (
        f"In the newest {hours(sharp[0])} the live model lost {sharp[0].loss:.0%} of its quality, "
        "and that is too new to tell a change from a fault."
    )


def unlike(tails: Sequence[Tail]) -> str:
    """Why a training waits: a tail may be of other ids. Empty if none is."""
    for tail in tails:
        limit = UNLIKE_CORRELATION * tail.expected_correlation
        if sharp_loss(tail) and tail.loss >= UNLIKE_LOSS and tail.label_correlation < limit:
            return (
                f"In the newest {hours(tail)} the live model lost {tail.loss:.0%} of its quality, "
                "and other answers are frequent than before: is the shop new, or do ids mean "
                "something else?"
            )
    return ""


def fills_window(tails: Sequence[Tail], loss: float, length: int) -> bool:
    """Whether the sharp loss of tails is older than half of a window of `length` ms, in which the
    live model lost the share `loss` of its quality. No doubt lasts longer."""
    sharp = [tail.loss for tail in tails if sharp_loss(tail)]
    if not sharp or not np.isfinite(loss):
        return False
    longest = tails[-1]
    long = length >= LONG_WINDOW * (longest.end + 1 - longest.start)
    return long and loss >= WINDOW_LOSS * float(np.median(sharp))


def learnable(tails: Sequence[Tail]) -> str:
    """Why a training can learn what is new: a baseline that learns from a tail alone has surely
    lost less than half of what the live model has. Empty if none says so.

    Noise takes from both alike; where visitors go other ways, only what was learnt before is wrong.
    The loss has to be large, because there is a noise that takes from the live model alone: events
    in random order. And it has to be nearly as old as the longest tail, because a training leaves
    out the newest day.
    """
    for tail in tails:
        if tail.refit is None or len(tail.history) < MIN_WINDOWS:
            continue
        if tail.loss < LEARNABLE_LOSS or tails[-1].loss < OLD_LOSS * tail.loss:
            continue
        mean, spread = tail.usual_refit
        if tail.refit - CERTAIN * spread > (1 - tail.loss / 2) * mean:
            return (
                f"In the newest {hours(tail)} the live model lost {tail.loss:.0%} of its quality, "
                f"and a baseline that learns from them alone is as good as ever ({tail.refit:.4f}, "
                f"usually {mean:.4f})."
            )
    return ""


def lasting_loss(tails: Sequence[Tail]) -> bool:
    """Whether the quality fell sharply in all of the longest of the `tails`."""
    return bool(tails) and lasting(tails[-1], tails[-2:-1])


def lasting(tail: Tail, half: Sequence[Tail]) -> bool:
    """Whether the quality fell sharply in all of a tail, of which `half` is the newer half."""
    if not half or not sharp_loss(tail):
        return False
    newer = half[0]
    older_groups = tail.groups - newer.groups
    if not older_groups:
        return False
    older_loss = (tail.loss * tail.groups - newer.loss * newer.groups) / older_groups
    return older_loss >= OLDER_LOSS * tail.loss


def fell_before(tail: Tail, longer: Tail) -> bool:
    """Whether the quality fell sharply in a tail, and a while before it began: `longer`, which is
    twice as long, then has more than half of the loss."""
    return sharp_loss(tail) and longer.loss >= FELL_BEFORE * tail.loss


def sharp_loss(tail: Tail) -> bool:
    """Whether the live model has surely lost a large share of its quality."""
    return tail.loss >= SHARP_LOSS and tail.deviation < -SHARP_DEVIATION
