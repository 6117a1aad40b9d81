"""What an alarm means: has the world changed, is the data broken, or is it the season? A pure
function."""

import math
from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from kreislauf.monitoring.limits import Signal

Verdict = Literal["quiet", "world changed", "data broken", "season or mix", "not enough data"]
TOO_OFTEN = 5.0
"""So many times as frequent as the most frequent right answer usually is, one is no fashion but a
placeholder."""
NEW = 0.005
"""New is a right answer that the hold-out has less than this share as often as the window."""
NEW_TOO_OFTEN = 0.5
NEW_ALONE = 0.5
"""A new one is a placeholder if it is so many times as frequent as the most frequent one usually
is, and has this share of all that is new: assortments change in many articles."""
MENDED = 0.25
"""Of what the live model lost: if learning anew brings back less, there is less to learn."""
GONE = 0.5
STRANGE = 0.25
"""If the model keeps less than the first share of its usual quality in a part of the window, and
how frequent each right answer is resembles the hold-out by less than the second share of the usual,
ids mean something else. What visitors come back to is found even then."""


OTHER = 0.5
"""With less than this share of the usual resemblance, other answers are right than were."""


class Quality(BaseModel):
    """How well the window was answered; recall and the like, higher is better, each at the mix of
    requests of the champion's hold-out."""

    model_config = ConfigDict(frozen=True)

    live: Signal = Field(description="The champion.")
    fresh: Signal = Field(
        description="A trivial baseline that learnt from half of the window, on the other half."
    )
    late: Signal = Field(description="The same in the later half of the window.")
    gain: float = Field(
        description="What the trivial baseline gains by learning anew, window included."
    )
    gain_low: float = Field(description="Lower end of its interval.")
    worst_part: float = Field(
        description="Of the champion, in the worst part of the window, as a share of its usual."
    )
    newcomer: tuple[float, float] = Field(
        description="Share of the right answers that the most frequent new one has, and that all new ones have."
    )

    @property
    def lost(self) -> float:
        """What the champion has fallen by; negative if it has risen."""
        return self.live.usual - self.live.value

    def taught(self, worth: float) -> bool:
        """Whether learning anew makes the trivial baseline surely better, and by as much."""
        return self.gain_low > 0 and self.gain >= worth

    def alone(self, worth: float) -> bool:
        """Whether the live model has fallen by as much, beyond its limit, and the fresh baselines
        have not."""
        return self.live.off < -1 and self.lost >= worth and not fell(self.fresh, self.late)


class Diagnosis(BaseModel):
    """What is the matter, and why we think so."""

    model_config = ConfigDict(frozen=True)

    verdict: Verdict
    evidence: list[str] = Field(description="Sentences.")
    noise: bool = Field(
        False,
        description="Data is broken, and the only sign is that there is less to learn from it.",
    )

    def kept(self, taught: object) -> "Diagnosis":
        """The same for a window that is not left out, because a baseline gains `taught` by learning
        from it."""
        told = f"What it has still makes a baseline better, by {taught}, so nothing is left out."
        return self.model_copy(update={"evidence": [*self.evidence, told]})

    def __str__(self) -> str:
        return f"{self.verdict.capitalize()}. {' '.join(self.evidence)}"


def diagnose(data: Mapping[str, Signal], quality: Quality, worth: float) -> Diagnosis:
    """Broken data first, because to learn from it makes the model worse; then what learning anew
    would mend.

    `data` are signals of the data itself. A loss or gain of less than `worth` is not worth a
    training.
    """
    alarms = [f"{signal}." for signal in data.values() if signal.alarm]
    other = meaning(data, quality)
    less = poverty(quality)
    if other or less:
        return Diagnosis(verdict="data broken", evidence=[*other, *less, *alarms], noise=not other)
    if stale := staleness(data.get("familiar"), quality, worth):
        return Diagnosis(verdict="world changed", evidence=[*stale, *alarms])
    if alarms:
        held = f"Learning anew would bring {quality.gain:+.4f}, so this is no reason to train."
        return Diagnosis(verdict="season or mix", evidence=[*alarms, held])
    return Diagnosis(verdict="quiet", evidence=["Nothing is beyond what is usual."])


def meaning(data: Mapping[str, Signal], quality: Quality) -> list[str]:
    """Signs that what was recorded means something else than before."""
    found = [told] if (told := placeholder(data.get("top_label"), *quality.newcomer)) else []
    familiar = data.get("familiar")
    if quality.worst_part < GONE and familiar and familiar.value < STRANGE * familiar.usual:
        found.append(
            f"In a part of the window the live model reaches {quality.worst_part:.0%} of its usual quality, and other "
            f"answers are frequent than were (correlation {familiar.value:.2f}, usually {familiar.usual:.2f}): ids "
            "seem to have got another meaning."
        )
    return found


def poverty(quality: Quality) -> list[str]:
    """Signs that there is less to learn from the window than from others."""
    fresh = quality.fresh
    late = quality.late
    live = quality.live
    lost = max(quality.lost, 0.0)
    if live.off > -1 or not fell(fresh, late) or quality.gain >= lost * MENDED:
        return []
    return [
        f"The live model lost {lost:.4f}, and a trivial baseline that knows the window falls with it "
        f"({fresh.value:.4f}, usually {fresh.usual:.4f} ± {fresh.limit:.4f}; in its later half {late.value:.4f}, "
        f"usually {late.usual:.4f} ± {late.limit:.4f}): there is less to learn from it. "
        f"Learning anew would bring {quality.gain:+.4f}."
    ]


def fell(fresh: Signal, late: Signal) -> bool:
    """Whether there is less to learn from the window, to its end. A change in the middle makes two
    worlds of a window, of which half of it teaches less than of one; its later half, which is half
    as much, then says that it is over."""
    return fresh.off < -1 and late.off < -0.5


def placeholder(top: Signal | None, new: float, all_new: float) -> str:
    """Whether one right answer is so frequent that it stands for something else; empty if none is.
    `top` is the log of the share of the most frequent one."""
    if top is None:
        return ""
    times = math.exp(top.value - top.usual)
    if top.off > 1 and times > TOO_OFTEN:
        return f"One right answer is {times:.0f} times as frequent as the most frequent one usually is: a placeholder?"
    if new > NEW_TOO_OFTEN * math.exp(top.usual) and new > NEW_ALONE * all_new:
        return f"One new answer is {new:.1%} of all right answers, and most of what is new: a placeholder?"
    return ""


def staleness(familiar: Signal | None, quality: Quality, worth: float) -> list[str]:
    """Signs that a training would make the answers better."""
    found = []
    live = quality.live
    fresh = quality.fresh
    if quality.taught(worth):
        found.append(
            f"Learning anew makes a trivial baseline better by {quality.gain:.4f} (at least {quality.gain_low:.4f})."
        )
    late = quality.late
    if quality.alone(worth):
        known = max(fresh, late, key=lambda signal: signal.off)
        found.append(
            f"The live model alone has fallen: it reaches {live.value:.4f} and reached {live.usual:.4f} ± "
            f"{live.limit:.4f}; a baseline that knows the window is as good as ever ({known.value:.4f}, "
            f"usually {known.usual:.4f})."
        )
    if (
        familiar
        and familiar.off < -1
        and familiar.value < OTHER * familiar.usual
        and quality.lost >= worth
    ):
        found.append(
            f"Other answers are right than were (correlation {familiar.value:.2f}, usually {familiar.usual:.2f}), and "
            f"the live model has lost {quality.lost:.4f}."
        )
    return found
