"""What an alarm means: has the world changed, is the data broken, or is it the season? A pure function."""

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from tasks.drift.limits import Signal

Verdict = Literal["quiet", "world changed", "data broken", "season or mix", "not enough data"]
TOO_OFTEN = 5.0
"""So many times as frequent as usual, an answer is a placeholder rather than a fashion."""
GONE = 0.2
"""With less than this share of its usual quality in a part of the window, the model knows nothing of what it sees."""


class Quality(BaseModel):
    """How well the window was answered; recall and the like, higher is better, each at the mix of requests of the
    champion's hold-out."""

    model_config = ConfigDict(frozen=True)

    live: Signal = Field(description="The champion.")
    fresh: Signal = Field(description="A trivial baseline that learnt from half of the window, on the other half.")
    gain: float = Field(description="What the trivial baseline gains by learning anew, window included.")
    gain_low: float = Field(description="Lower end of its interval.")
    worst_part: float = Field(description="Of the champion, in the worst part of the window, as a share of its usual.")


class Diagnosis(BaseModel):
    """What is the matter, and why we think so."""

    model_config = ConfigDict(frozen=True)

    verdict: Verdict
    evidence: list[str] = Field(description="Sentences.")

    def __str__(self) -> str:
        return f"{self.verdict.capitalize()}. {' '.join(self.evidence)}"


def diagnose(data: Mapping[str, Signal], quality: Quality, worth: float) -> Diagnosis:
    """Broken data first, because to learn from it makes the model worse; then what learning anew would mend.

    `data` are signals of the data itself. A loss or gain of less than `worth` is not worth a training.
    """
    alarms = [f"{signal}." for signal in data.values() if signal.alarm]
    if broken := faults(data, quality):
        return Diagnosis(verdict="data broken", evidence=[*broken, *alarms])
    if stale := staleness(quality, worth):
        return Diagnosis(verdict="world changed", evidence=[*stale, *alarms])
    if alarms:
        held = f"Learning anew would bring {quality.gain:+.4f}, so this is no reason to train."
        return Diagnosis(verdict="season or mix", evidence=[*alarms, held])
    return Diagnosis(verdict="quiet", evidence=["Nothing is beyond what is usual."])


def faults(data: Mapping[str, Signal], quality: Quality) -> list[str]:
    """Signs that what was recorded is not what happened."""
    found = []
    top = data.get("top_label")
    if top and top.off > 1 and top.value > TOO_OFTEN * top.usual:
        found.append(
            f"One right answer is {top.value / top.usual:.0f} times as frequent as the most frequent one usually is: "
            "a placeholder?"
        )
    fresh, live = quality.fresh, quality.live
    if quality.worst_part < GONE and not fresh.off < -1:
        found.append(
            f"In a part of the window the live model reaches {quality.worst_part:.0%} of its usual quality, though a "
            "baseline that knows the window does well: ids seem to have got another meaning."
        )
    lost = max(live.usual - live.value, 0.0)
    if fresh.off < -1 and quality.gain < lost / 2:
        found.append(
            f"The live model lost {lost:.4f}, and a trivial baseline that knows the window falls with it "
            f"({fresh.value:.4f}, usually {fresh.usual:.4f} ± {fresh.limit:.4f}): there is less to learn from it. "
            f"Learning anew would bring {quality.gain:+.4f}."
        )
    return found


def staleness(quality: Quality, worth: float) -> list[str]:
    """Signs that a training would make the answers better."""
    found, live, fresh = [], quality.live, quality.fresh
    if quality.gain_low > 0 and quality.gain >= worth:
        found.append(
            f"Learning anew makes a trivial baseline better by {quality.gain:.4f} (at least {quality.gain_low:.4f})."
        )
    if live.off < -1 and live.usual - live.value >= worth and not fresh.off < -1:
        found.append(
            f"The live model alone has fallen: it reaches {live.value:.4f} and reached {live.usual:.4f} ± "
            f"{live.limit:.4f}; a baseline that knows the window is as good as ever ({fresh.value:.4f}, "
            f"usually {fresh.usual:.4f})."
        )
    return found
