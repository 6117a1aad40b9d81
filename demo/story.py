"""The loop at work in six acts, on a simulated shop: what happened, each in a line.

1. A first model goes live.
2. A stable period: nothing is retrained.
3. The season changes: recall falls, the monitor says why, its event starts a retraining.
4. Tracking breaks: nothing is trained on it, and lines that could not be read come back later.
5. A challenger that is not better is refused.
6. A release that people click less is rolled back.

The worker retrains in act 3, by the monitor's event. Everything else runs in this process, where
mistakes in code can be made (`mishaps.py`).

Import this only after the environment says where the stack is.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from demo import mishaps, retrainings
from demo.loop import MODEL, Loop, live_version, small_params
from demo.plan import SPANS, STARTS
from demo.shop import START_MS
from flows.replay import replay
from flows.watch import watch
from kreislauf.clock import DAY_MS
from kreislauf.monitoring.policy import ASKED

STRUCK_SHARE = 0.6
"""Share of the events that lose their article on the second day of the fault."""
UNREADABLE = 60
"""Lines of the fault that an updated app writes, with a field that no rule has."""
STEPS = 1_100
"""Steps of visits in which the gateway is asked, before a release and after it."""


@dataclass(frozen=True)
class Act:
    """What was seen to happen, or was not."""

    title: str
    happened: bool
    sentence: str

    def line(self, number: int) -> str:
        """What is printed about the act that has this number."""
        title = f"{number}. {self.title}"
        if not self.happened:
            title = f"{title} (NOT AS IT SHOULD)"
        return f"{title}: {self.sentence}"


def acts(loop: Loop) -> Iterator[Act]:
    """Play one act after the other."""
    yield first_model(loop)
    yield stable(loop)
    yield season(loop)
    yield fault(loop)
    yield refusal(loop)
    yield fall(loop)


def first_model(loop: Loop) -> Act:
    """A model is trained on the history, judged, and put live."""
    first = loop.first_model()
    return Act(
        "A first model goes live",
        live_version() == first.version,
        f"version {first.version} has learnt from a week of visits, was judged on the next day, "
        "and answers now.",
    )


def stable(loop: Loop) -> Act:
    """Nothing changes, and nothing is retrained."""
    recalls = loop.serve("stable")
    finding = loop.look()
    return Act(
        "A stable period",
        finding.verdict == "stable" and finding.action != ASKED,
        f"version {recalls.version} finds the next article in {recalls.live:.0%} of the cases. "
        f"The monitor: {finding.verdict}. Nothing is retrained.",
    )


def season(loop: Loop) -> Act:
    """A third of the assortment is replaced; the monitor's event starts a retraining."""
    loop.everything()
    retrainings.set_params(MODEL, small_params())
    since = datetime.now(UTC)
    recalls = loop.serve("season")
    finding = loop.look()
    is_asked = finding.verdict == "concept drift" and finding.action == ASKED
    if is_asked:
        retrainings.wait(since, MODEL)
        loop.events += 1
        loop.outcomes.append(retrainings.newest_outcome(MODEL))
    return Act(
        "The season changes",
        is_asked and live_version() != recalls.version and has_fallen(loop),
        f"recall falls to {recalls.live:.0%}. The monitor: {finding.verdict}. {finding.action} The "
        f"worker retrains, and version {live_version()} is live.",
    )


def fault(loop: Loop) -> Act:
    """On the second day a tracker loses articles. On the first, an app sends lines that cannot be
    read; they come back when the rule is mended."""
    before = live_version()
    start = START_MS + (STARTS["fault"] + 1) * DAY_MS
    tracked = mishaps.with_placeholders(loop.events_of("fault"), start, STRUCK_SHARE)
    recalls = loop.serve("fault", tracked, UNREADABLE)
    finding = loop.look()
    with mishaps.unknown_fields_allowed():
        replayed = replay(MODEL)
    is_noticed = finding.verdict == "data fault" and live_version() == before
    return Act(
        "Tracking breaks",
        is_noticed and replayed.lines_loaded == UNREADABLE and has_risen(loop),
        f"recall is back at {recalls.live:.0%}. The monitor: {finding.verdict}. {finding.action} "
        f"{replayed.lines_loaded} lines with an unknown field waited in quarantine, and became "
        "rows when the rule was mended.",
    )


def refusal(loop: Loop) -> Act:
    """A mistake in the code makes a bad challenger; the gate refuses it."""
    before = live_version()
    loop.serve("mended")
    with mishaps.worst_answers():
        retraining = loop.retrain("a change of the model's code", seed=1)
    return Act(
        "A worse challenger",
        retraining.outcome == "refuse" and live_version() == before,
        f"somebody turned a sign in the model's code. Version {retraining.version} is refused. "
        f"{first_sentence(retraining.reason)}",
    )


def fall(loop: Loop) -> Act:
    """A mistake that the gate cannot see makes people click less; the release is rolled back."""
    before = live_version()
    steps = loop.steps_of("mended")
    clicks_before = loop.clicks(steps.take(np.arange(STEPS)))
    with mishaps.reversed_answers():
        retraining = loop.retrain("another change of the model's code", seed=2)
    if retraining.release is None:
        return Act("People click less", False, retraining.reason)
    clicks_after = loop.clicks(steps.take(np.arange(STEPS, 2 * STEPS)))
    watch(maturity_minutes=0)
    loop.rolled_back += live_version() == before
    return Act(
        "People click less",
        live_version() == before and clicks_after < clicks_before,
        f"version {retraining.version} passed the gate, but has the best article last. Clicks per "
        f"answer fall from {clicks_before:.2f} to {clicks_after:.2f}, and version {live_version()} "
        "is live again. A person is asked before the next release.",
    )


def has_fallen(loop: Loop) -> bool:
    """Whether the live model lost a third of its recall or more since the period before."""
    return loop.recalls[-1].live < loop.recalls[-2].live * 2 / 3


def has_risen(loop: Loop) -> bool:
    """Whether the live model won half of its recall or more since the period before."""
    return loop.recalls[-1].live > loop.recalls[-2].live * 3 / 2


def epilogue(loop: Loop) -> str:
    """What happened, and what it would have cost not to have the loop."""
    last = loop.recalls[-1]
    return (
        f"In {sum(SPANS.values())} days of a shop, {len(loop.outcomes)} versions were trained: "
        f"{loop.outcomes.count('promote')} went live, {loop.outcomes.count('refuse')} was refused, "
        f"{loop.rolled_back} was rolled back. In the last period the live model finds the next "
        f"article in {last.live:.0%} of the cases; the first one, had it been kept, in "
        f"{last.frozen:.0%}. Without the gate people would have got the articles that fit least, "
        "and without the look at their clicks a list that is upside down."
    )


def first_sentence(reasons: str) -> str:
    """The first of some sentences."""
    return f"{reasons.partition('. ')[0].rstrip('.')}."
