"""What an alarm means: has the shop changed, is its data faulty, or is it the season? Pure
functions."""

import math
from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field

from kreislauf.evaluation.intervals import Interval
from kreislauf.monitoring import doubts, suspicion
from kreislauf.monitoring.limits import Signal
from kreislauf.monitoring.measurement import Measurement
from kreislauf.monitoring.probe import CONFIDENCE, LABEL_CORRELATION, REFIT, REFIT_TAIL, TOP_LABEL
from kreislauf.monitoring.statistics import fault_interval
from kreislauf.monitoring.window_quality import Verdict, WindowQuality

NEW_PLACEHOLDER_RATIO = 0.5
"""Frequency of a new placeholder, as a multiple of what the most frequent right answer usually
has."""
MIN_RECOVERY = 0.25
"""Smallest share of the live model's loss that a refit brings back where there is enough to
learn."""
COLLAPSE = 0.5
"""Share of its usual quality below which the model has collapsed in a stretch of the window."""
REMAPPED_CORRELATION = 0.25
"""Share of the usual label correlation below which ids mean something else. What visitors come back
to is found even then."""
CHANGED_CORRELATION = 0.5
"""Share of the usual label correlation below which other answers are right than before."""


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
    evidence = [doubt, *diagnosis.evidence]
    return diagnosis.model_copy(update={"verdict": "undecided", "evidence": evidence})


def _doubt(measurement: Measurement, signals: Mapping[str, Signal], diagnosis: Diagnosis) -> str:
    """Why the newest tails leave the `diagnosis` of the window undecided; empty if they do not."""
    tails = measurement.tails
    unjudged = doubts.unjudged(tails, measurement.excluded, *measurement.tail_stretch)
    if unjudged:
        return unjudged
    live = signals.get(measurement.metric)
    length = measurement.end + 1 - measurement.start
    if live and doubts.fills_window(tails, 1 - live.value / max(live.mean, 1e-9), length):
        return ""
    stale = diagnosis.verdict == "concept drift"
    if stale and not measurement.trusted and doubts.unlike(tails):
        return doubts.unlike(tails)
    if doubts.lasting_loss(tails) and not stale:
        return UNEXPLAINED
    return doubts.young_change(tails)


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
        placeholder = placeholder_evidence(data.get(TOP_LABEL), *quality.new_label_shares)
        remapped = remapped_evidence(data.get(LABEL_CORRELATION), quality)
    semantic_change = [sign for sign in (placeholder, remapped) if sign]
    noise = noise_evidence(quality)
    if semantic_change or noise:
        return Diagnosis(
            verdict="data fault",
            evidence=[*semantic_change, *noise, *alarms],
            noise_only=not semantic_change,
            meaning=bool(remapped),
        )
    staleness = staleness_evidence(data.get(LABEL_CORRELATION), quality, min_gain)
    if staleness:
        return Diagnosis(verdict="concept drift", evidence=[*staleness, *alarms])
    if alarms:
        reason = (
            f"A refit would gain {quality.gain.mean:+.4f}, so this is no reason for a training."
        )
        return Diagnosis(verdict="covariate shift", evidence=[*alarms, reason])
    calm = "No signal of the data is beyond its tolerance, and a training would not pay."
    return Diagnosis(verdict="stable", evidence=[calm])


def remapped_evidence(correlation: Signal | None, quality: WindowQuality) -> str:
    """Whether ids seem to mean something else than before; empty if not."""
    collapsed = quality.worst_stretch < COLLAPSE
    if not (collapsed and correlation and _below(correlation, REMAPPED_CORRELATION)):
        return ""
    return (
        f"In a stretch of the window the live model reaches {quality.worst_stretch:.0%} of its "
        f"usual quality, and other answers are frequent than before ({_pair(correlation)}): "
        "ids seem to mean something else."
    )


def noise_evidence(quality: WindowQuality) -> list[str]:
    """Signs that there is less to learn from the window than from others."""
    loss = max(quality.loss, 0.0)
    live_held = quality.live.deviation > -1 and not quality.unexplained
    refit_fell = quality.refit_fell or (quality.unexplained and quality.refit.deviation < -1)
    recovered = quality.gain.mean >= loss * MIN_RECOVERY
    if live_held or not refit_fell or recovered:
        return []
    return [
        f"The live model lost {loss:.4f}, and a baseline that is refitted on the window falls "
        f"with it ({_limits(quality.refit)}; in the later half {_limits(quality.refit_tail)}): "
        f"there is less to learn. A refit would gain {quality.gain.mean:+.4f}."
    ]


def placeholder_evidence(top_label: Signal | None, new: float, all_new: float) -> str:
    """Whether one right answer is so frequent that it stands for something else; empty if none is.

    `top_label` is the log of the share of the most frequent right answer, `new` the share of the
    most frequent new one, `all_new` that of all new ones.
    """
    if top_label is None:
        return ""
    ratio = math.exp(top_label.value - top_label.mean)
    if top_label.deviation > 1 and ratio > suspicion.PLACEHOLDER_RATIO:
        return (
            f"One right answer is {ratio:.0f} times as frequent as the most frequent one usually "
            "is: a placeholder?"
        )
    usual_share = math.exp(top_label.mean)
    frequent = new > NEW_PLACEHOLDER_RATIO * usual_share
    if frequent and new > suspicion.NEW_PLACEHOLDER_SHARE * all_new:
        return (
            f"One new answer is {new:.1%} of all right answers, and most of what is new: a "
            "placeholder?"
        )
    return ""


def staleness_evidence(
    correlation: Signal | None, quality: WindowQuality, min_gain: float
) -> list[str]:
    """Signs that a training would make the answers better."""
    evidence = []
    metric = quality.live.name
    if quality.refit_helps(min_gain):
        evidence.append(
            f"Retraining pays: the refitted baseline gains {quality.gain.mean:.4f} {metric} "
            f"({CONFIDENCE:.1%} interval from {quality.gain.low:.4f})."
        )
    if quality.newest_refit_helps:
        evidence.append(
            "The live model fell sharply, and in the newest tail a refitted baseline gains "
            f"{quality.newest_gain} {metric}."
        )
    if quality.only_live_fell(min_gain):
        best_refit = max(quality.refit, quality.refit_tail, key=lambda signal: signal.deviation)
        evidence.append(
            f"Only the live model fell: it reaches {_limits(quality.live)}; a baseline that is "
            f"refitted on the window is as good as ever ({best_refit.value:.4f}, usually "
            f"{best_refit.mean:.4f})."
        )
    lost_enough = quality.loss >= min_gain
    changed = correlation and correlation.deviation < -1
    if correlation and changed and lost_enough and _below(correlation, CHANGED_CORRELATION):
        evidence.append(
            f"Other answers are right than before ({_pair(correlation)}), and the live model has "
            f"lost {quality.loss:.4f} {metric}."
        )
    return evidence


def _below(correlation: Signal, share: float) -> bool:
    return correlation.value < share * correlation.mean


def _pair(correlation: Signal) -> str:
    return f"correlation {correlation.value:.2f}, usually {correlation.mean:.2f}"


def _limits(signal: Signal) -> str:
    return f"{signal.value:.4f}, usually {signal.mean:.4f} ± {signal.tolerance:.4f}"
