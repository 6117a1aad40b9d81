"""The signals of quality in a window, and what they say together: pure functions."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from kreislauf.evaluation.intervals import Interval
from kreislauf.monitoring.limits import Signal

Verdict = Literal[
    "stable", "concept drift", "data fault", "covariate shift", "undecided", "not enough data"
]


class WindowQuality(BaseModel):
    """The signals of quality in a window, each at the mix of requests of the version's hold-out."""

    model_config = ConfigDict(frozen=True)

    live: Signal = Field(description="The version.")
    refit: Signal = Field(
        description="A trivial baseline that learnt from half of the window, on the other half."
    )
    refit_tail: Signal = Field(description="The same in the later half of the window.")
    gain: Interval = Field(description="Gain of the trivial baseline by a refit.")
    newest_gain: Interval | None = Field(
        None, description="See `Measurement`: there if the quality fell sharply and lately."
    )
    is_old: bool = Field(False, description="See `doubts.fills_window`.")
    learnable: str = Field("", description="See `doubts.learnable`.")
    worst_stretch: float = Field(description="See `Quality`.")
    new_label_shares: tuple[float, float] = Field(description="See `Quality`.")

    @property
    def loss(self) -> float:
        """How far the version has fallen below its reference; negative if it has risen."""
        return self.live.mean - self.live.value

    @property
    def refit_fell(self) -> bool:
        """Whether there is less to learn from the window, to its end.

        A change in the middle makes two worlds of a window, of which half of it teaches less than
        of one. Its later half, which is half as much, then says that the change is over.
        """
        return self.refit.deviation < -1 and self.refit_tail.deviation < -0.5

    def refit_helps(self, min_gain: float) -> bool:
        """Whether a refit makes the trivial baseline surely better, and by at least `min_gain`."""
        return self.gain.low > 0 and self.gain.mean >= min_gain

    def only_live_fell(self, min_gain: float) -> bool:
        """Whether the live model has fallen by at least `min_gain`, beyond its tolerance, the
        refitted baselines have not, and a refit is surely better.

        Without the last a training would learn what is no better than what was learnt before.
        """
        fell = self.live.deviation < -1 and self.loss >= min_gain
        return fell and not self.refit_fell and self.gain.low > 0

    @property
    def newest_refit_helps(self) -> bool:
        """Whether the quality fell sharply of late, and a refit surely brings some of it back."""
        return self.newest_gain is not None and self.newest_gain.low > 0

    @property
    def newest_rows_teach(self) -> bool:
        """Whether the quality fell sharply of late, and what is new can be learnt."""
        return self.newest_refit_helps or (self.newest_gain is not None and bool(self.learnable))

    @property
    def unexplained(self) -> bool:
        """Whether the quality fell sharply of late, and nothing shows that a refit would help."""
        return self.newest_gain is not None and not self.newest_rows_teach

    def regret(self, verdict: Verdict, min_gain: float) -> float:
        """How much better a new version would have answered: the gain, or the loss of the live
        model if that is the reason for concept drift."""
        live_fell = self.only_live_fell(min_gain) or not self.refit_helps(min_gain)
        if verdict == "concept drift" and live_fell:
            return max(self.gain.mean, self.loss)
        return self.gain.mean
