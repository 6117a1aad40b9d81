"""Everything that was measured about one version in one window, as one record."""

from collections.abc import Mapping, Sequence
from statistics import NormalDist

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from kreislauf.evaluation import scoring, split
from kreislauf.evaluation.intervals import Interval, interval
from kreislauf.lake.clocks import Source
from kreislauf.monitoring import doubts, limits, statistics, suspicion
from kreislauf.monitoring.limits import Measured, Signal
from kreislauf.monitoring.probe import (
    CONFIDENCE,
    REFIT,
    REFIT_TAIL,
    Probe,
    QualityMeasurement,
    SliceQuality,
)
from kreislauf.monitoring.tails import Tail
from kreislauf.monitoring.window import TrustedRows, Window
from models.spec import ModelSpec


class Quality(BaseModel):
    """How well a window was answered; recall and the like, higher is better."""

    model_config = ConfigDict(frozen=True)

    live: float = Field(description="Metric of the version, at the hold-out's mix of requests.")
    baseline: float = Field(description="The same of the version's trivial baseline.")
    first_version: float | None = Field(
        None, description="The same of the first version that was live; see `first_version.py`."
    )
    realised: Interval = Field(description="Metric of the version over all requests.")
    gain: Interval = Field(description="Gain of a trivial baseline that is refitted.")
    stretches: list[tuple[int, float]] = Field(
        description="Beginning (ms) and mean metric of stretches of the window."
    )
    worst_stretch: float = Field(
        description="Metric of the version in the worst stretch, as a share of its reference."
    )
    new_label_shares: tuple[float, float] = Field(
        description="Share of the right answers that the most frequent new one has, and that all "
        "new ones have."
    )


class Measurement(BaseModel):
    """One version in one window; small enough to be handed from task to task."""

    model_config = ConfigDict(frozen=True)

    model: str
    version: int
    metric: str
    start: int = Field(description="Beginning of the window, ms since 1970 UTC.")
    end: int = Field(description="End of the window, ms since 1970 UTC, inclusive.")
    groups: int = Field(description="Number of groups in the window.")
    holdout: int | None = Field(
        None, description="First event of the hold-out that it is compared with, ms since 1970 UTC."
    )
    table_version: int = Field(0, description="Version of the table that was read.")
    excluded: list[tuple[int, int]] = Field(
        [], description="Stretches (ms, inclusive) whose rows were left out."
    )
    tails: list[Tail] = Field([], description="The newest tails, the shortest first.")
    tail_stretch: tuple[int, int] = Field(
        (0, 0), description="Beginning of the longest tail, and the newest row, ms, inclusive."
    )
    trusted: bool = Field(False, description="Whether a person trusts the newest rows.")
    shortage: str = Field("", description="Why more could not be measured; empty if it was.")
    reference: Interval | None = Field(None, description="Metric of the version on its hold-out.")
    confidence: float = Field(0.95, description="Confidence level of `reference`.")
    signals: dict[str, Measured] = {}
    quality: Quality | None = None
    newest_gain: Interval | None = Field(
        None,
        description="Gain of a trivial baseline in the longest tail, where the quality fell "
        "sharply in all of it.",
    )
    slices: list[SliceQuality] = []
    drift: dict[str, float] = Field({}, description="Evidently's PSI of each monitored column.")
    remarks: list[str] = Field(
        [], description="What somebody should look at, though it changes no verdict."
    )
    sources: list[Source] = Field([], description="Sources of the table, and how far each is.")
    clicks: list[tuple[int, str, int, Interval]] = Field(
        [], description="Version, variant, answers, and clicks per answer since the window began."
    )

    @property
    def newest_fault(self) -> suspicion.Fault | None:
        """The fault that the newest tails show; None without."""
        return suspicion.fault(self.tails, self.excluded, self.trusted)


def begin(
    model: str,
    version: int,
    probe: Probe,
    rows: TrustedRows,
    tails: list[Tail],
    stretch: tuple[int, int],
    trusted: bool,
) -> Measurement:
    """A measurement of which only the newest `tails` are there, the longest of which is the
    `stretch` (ms, inclusive); `trusted` says whether a person trusts the newest rows."""
    return Measurement(
        model=model,
        version=version,
        metric=probe.model_type.metric,
        start=min((tail.start for tail in tails), default=0),
        end=max((tail.end for tail in tails), default=0),
        groups=max((tail.groups for tail in tails), default=0),
        holdout=probe.holdout[probe.model_type.table.time].min(),  # type: ignore[arg-type]
        table_version=rows.table_version,
        excluded=list(rows.excluded),
        tails=tails,
        tail_stretch=stretch,
        trusted=trusted,
        reference=probe.reference,
        confidence=probe.model_type.policy.confidence,
    )


def of_window(head: Measurement, model_type: ModelSpec, window: Window) -> Measurement:
    """The measurement of a window, with a shortage if it holds too little."""
    measurement = head.model_copy(
        update={"start": window.start, "end": window.end, "groups": window.groups}
    )
    began = window.sample[model_type.table.group].n_unique()
    enough = began >= model_type.policy.min_groups and len(model_type.examples(window.sample))
    if enough:
        return measurement
    shortage = (
        f"{began} groups since version {head.version} was judged; the policy wants "
        f"{model_type.policy.min_groups}, and some with a right answer."
    )
    return measurement.model_copy(update={"shortage": shortage})


def newest_gain(
    probe: Probe, window: Window, tails: Sequence[Tail], before: pl.DataFrame
) -> Interval | None:
    """Gain of a baseline that learns from `before` and half of the window over the version's own
    baseline, in the longest of the `tails`; each half is asked of what the other has taught. None
    if the quality did not fall sharply in all of that tail."""
    if not doubts.lasting_loss(tails):
        return None
    since = tails[-1].start
    model_type = probe.model_type
    table = model_type.table
    first_half, second_half = split.halves(window.sample, table)
    gains = []
    groups = []
    for learnt, asked in ((first_half, second_half), (second_half, first_half)):
        examples = model_type.examples(asked.filter(table.within(since)))
        if not len(examples):
            continue
        refit = scoring.baseline_scores(model_type, pl.concat([before, learnt]), examples)
        outputs = scoring.answer(probe.baseline, examples.inputs)
        gains.append(refit - model_type.score(examples, outputs))
        groups.append(examples.groups)
    return interval(np.concatenate(gains), np.concatenate(groups), CONFIDENCE)


def short_history(version: int) -> str:
    """The shortage of a version that learnt from too little."""
    return (
        f"There is too little before version {version}'s hold-out to learn from it what is usual."
    )


def window_quality(
    probe: Probe,
    window: Window,
    measured: QualityMeasurement,
    first_version: float | None = None,
) -> Quality:
    """Quality of the version in the window, of what `Probe.quality` has `measured` there; and that
    of the `first_version`."""
    model_type = probe.model_type
    groups = measured.examples.groups
    starts = statistics.groups_by_start(window.sample, model_type.table)
    stretches = statistics.stretch_means(measured.scores, groups, starts)
    worst = min((mean for _, mean in stretches), default=float(measured.scores.mean()))
    labels_before = probe.holdout_examples.labels
    return Quality(
        live=probe.live_quality(window, measured.scores),
        baseline=probe.live_quality(window, measured.baseline_scores),
        first_version=first_version,
        realised=interval(measured.scores, groups, model_type.policy.confidence),
        gain=measured.gain,
        stretches=stretches,
        worst_stretch=worst / max(probe.reference.mean, 1e-9),
        new_label_shares=statistics.new_label_shares(measured.examples.labels, labels_before),
    )


def with_history(
    values: Mapping[str, float], history: Mapping[str, list[float]]
) -> dict[str, Measured]:
    """Each value with its own history."""
    return {
        name: Measured(value=value, history=history.get(name, [])) for name, value in values.items()
    }


def compare(measurement: Measurement) -> dict[str, Signal]:
    """Each signal beside its history, and the live quality, under the metric's name, beside its
    reference; empty if there was a shortage."""
    if measurement.shortage:
        return {}
    signals = limits.compare(measurement.signals)
    refit = signals.get(REFIT)
    if refit is None or measurement.quality is None or measurement.reference is None:
        return {}
    live = live_signal(
        measurement.metric,
        measurement.quality.live,
        measurement.reference,
        measurement.confidence,
        refit,
    )
    first = {name: signals.pop(name) for name in (REFIT, REFIT_TAIL) if name in signals}
    return {measurement.metric: live, **first, **signals}


def live_signal(
    metric: str, value: float, reference: Interval, confidence: float, refit: Signal
) -> Signal:
    """The live quality as a signal.

    It varies between windows as a refitted baseline's quality does, and its reference is known to
    its own error only.
    """
    quantile = NormalDist().inv_cdf((1 + confidence) / 2)
    error = (reference.high - reference.low) / 2 / quantile
    tolerance = float(np.hypot(refit.tolerance, 3 * error))
    return Signal(
        name=metric,
        value=value,
        mean=reference.mean,
        tolerance=tolerance,
        windows=refit.windows,
        direction=-1,
    )
