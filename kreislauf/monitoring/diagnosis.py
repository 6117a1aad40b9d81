"""What an alarm means: has the shop changed, is its data faulty, or is it the season? Pure
functions."""

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field

from kreislauf.evaluation.intervals import Interval
from kreislauf.monitoring import doubts, evidence
from kreislauf.monitoring.limits import Signal
from kreislauf.monitoring.measurement import Measurement
from kreislauf.monitoring.probe import LABEL_CORRELATION, REFIT, REFIT_TAIL, TOP_LABEL
from kreislauf.monitoring.statistics import fault_interval
from kreislauf.monitoring.window_quality import Verdict, WindowQuality

UNEXPLAINED = (
    "The live model fell sharply, and nothing shows yet that learning from the newest data would "
    "bring its quality back."
)


class Diagnosis(BaseModel):
    """What is the matter, and why we think so."""

    model_config = ConfigDict(frozen=True)

    verdict: Verdict
    evidence: list[str] = Field(description="Sentences.")
    noise_only: bool = Field(
        False, description="A data fault whose only sign is that there is less to learn."
    )
    meaning: bool = Field(
        False, description="A data fault in which ids seem to mean something else."
    )
    sharp: bool = Field(False, description="Whether the quality fell sharply, and stayed there.")
    fault: tuple[int, int] | None = Field(
        None, description="Stretch (ms, inclusive) that must not be learnt from."
    )
    regret: float = Field(0.0, description="Metric that a new version would have won.")

    @property
    def meaning_fault(self) -> tuple[int, int] | None:
        """The fault in which ids seem to mean something else; None without."""
        if not self.meaning:
            return None
        return self.fault

    def keeping_window(self, gain: Interval) -> "Diagnosis":
        """The same diagnosis, given the gain of a baseline by learning from the window all the
        same: if that is surely positive, nothing is left out."""
        if not gain.low > 0:  # NaN, too: nothing shows that the window is worth keeping.
            return self
        sentence = f"A baseline still gains {gain} by learning from it, so nothing is left out."
        return self.model_copy(update={"evidence": [*self.evidence, sentence], "fault": None})


def diagnose(measurement: Measurement, signals: Mapping[str, Signal], min_gain: float) -> Diagnosis:
    """The verdict on a window, with its evidence.

    `signals` are from `compare`. A loss or gain of less than `min_gain` is not worth a training.
    What the newest tails say about meaning comes first.
    """
    newest_fault = measurement.newest_fault
    if newest_fault:
        return Diagnosis(
            verdict="data fault",
            evidence=[newest_fault.evidence],
            noise_only=newest_fault.noise,
            meaning=newest_fault.meaning,
            fault=(newest_fault.start, newest_fault.end),
        )
    diagnosis = _of_window(measurement, signals, min_gain)
    doubt = _doubt(measurement, signals, diagnosis)
    if not doubt or diagnosis.verdict == "data fault":
        return diagnosis.model_copy(update={"sharp": doubts.lasting_loss(measurement.tails)})
    sentences = [doubt, *diagnosis.evidence]
    return diagnosis.model_copy(update={"verdict": "undecided", "evidence": sentences})


def _doubt(measurement: Measurement, signals: Mapping[str, Signal], diagnosis: Diagnosis) -> str:
    """Why the newest tails leave the `diagnosis` of the window undecided; empty if they do not."""
    tails = measurement.tails
    unjudged = doubts.unjudged(tails, measurement.excluded, *measurement.tail_stretch)
    if unjudged:
        return unjudged
    if _is_old(measurement, signals):
        return ""
    stale = diagnosis.verdict == "concept drift"
    unlike = doubts.unlike(tails)
    if unlike and stale and not measurement.trusted:
        return unlike
    if doubts.lasting_loss(tails) and not stale:
        return UNEXPLAINED
    return doubts.young_change(tails)


def _is_old(measurement: Measurement, signals: Mapping[str, Signal]) -> bool:
    """Whether what the tails show fills half of the window."""
    live = signals.get(measurement.metric)
    if live is None:
        return False
    loss = 1 - live.value / max(live.mean, 1e-9)
    length = measurement.end + 1 - measurement.start
    return doubts.fills_window(measurement.tails, loss, length)


def _of_window(
    measurement: Measurement, signals: Mapping[str, Signal], min_gain: float
) -> Diagnosis:
    """The diagnosis of the whole window."""
    if not signals or measurement.quality is None:
        reason = measurement.shortage or "No baseline could be refitted in the window."
        return Diagnosis(verdict="not enough data", evidence=[reason])
    refit = signals[REFIT]
    quality = WindowQuality(
        live=signals[measurement.metric],
        refit=refit,
        refit_tail=signals.get(REFIT_TAIL, refit),
        gain=measurement.quality.gain,
        newest_gain=measurement.newest_gain,
        is_old=_is_old(measurement, signals),
        learnable=doubts.learnable(measurement.tails),
        worst_stretch=measurement.quality.worst_stretch,
        new_label_shares=measurement.quality.new_label_shares,
    )
    of_quality = {measurement.metric, REFIT, REFIT_TAIL}
    data = {name: signal for name, signal in signals.items() if name not in of_quality}
    diagnosis = judge(data, quality, min_gain, measurement.trusted)
    fault = None
    if diagnosis.verdict == "data fault":
        fault = fault_interval(
            measurement.quality.stretches,
            quality.live.mean,
            quality.live.tolerance,
            measurement.start,
            measurement.end,
        )
    regret = quality.regret(diagnosis.verdict, min_gain)
    return diagnosis.model_copy(update={"fault": fault, "regret": regret})


def judge(
    data: Mapping[str, Signal], quality: WindowQuality, min_gain: float, trusted: bool = False
) -> Diagnosis:
    """The verdict by the signals of the `data` itself and by the `quality`.

    If a person trusts the newest rows (`trusted`), ids may mean something else. A data fault comes
    first, because to learn from it makes the model worse; then what a training would mend.
    """
    alarms = [f"{signal}." for signal in data.values() if signal.alarm]
    placeholder = ""
    remapped = ""
    if not trusted:
        placeholder = evidence.placeholder(data.get(TOP_LABEL), *quality.new_label_shares)
        remapped = evidence.remapped(data.get(LABEL_CORRELATION), quality)
    semantic_change = [sign for sign in (placeholder, remapped) if sign]
    noise = evidence.noise(quality)
    if semantic_change or noise:
        return Diagnosis(
            verdict="data fault",
            evidence=[*semantic_change, *noise, *alarms],
            noise_only=not semantic_change,
            meaning=bool(remapped),
        )
    staleness = evidence.staleness(data.get(LABEL_CORRELATION), quality, min_gain)
    if staleness:
        return Diagnosis(verdict="concept drift", evidence=[*staleness, *alarms])
    unlearnable = evidence.unlearnable(quality)
    if unlearnable:
        return Diagnosis(verdict="data fault", evidence=[unlearnable, *alarms], noise_only=True)
    if alarms:
        reason = (
            f"A refit would gain {quality.gain.mean:+.4f}, so this is no reason for a training."
        )
        return Diagnosis(verdict="covariate shift", evidence=[*alarms, reason])
    calm = "No signal of the data is beyond its tolerance, and a training would not pay."
    return Diagnosis(verdict="stable", evidence=[calm])
