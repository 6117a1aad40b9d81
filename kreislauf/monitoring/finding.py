"""What the newest window says about a version."""

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field

from kreislauf.evaluation.intervals import Interval
from kreislauf.lake.exclusions import touching
from kreislauf.monitoring.agreement import Agreement
from kreislauf.monitoring.diagnosis import Diagnosis, Verdict
from kreislauf.monitoring.limits import Signal
from kreislauf.monitoring.measurement import Measurement


class Finding(BaseModel):
    """What the newest window says about a version."""

    model_config = ConfigDict(frozen=True)

    model: str
    version: int
    start: int = Field(description="Beginning of the window, ms since 1970 UTC.")
    end: int = Field(description="End of the window, ms since 1970 UTC, inclusive.")
    groups: int = Field(description="Number of groups in the window.")
    holdout: int | None = Field(
        None, description="First event of the hold-out that it is compared with, ms since 1970 UTC."
    )
    verdict: Verdict
    reason: str = Field(description="The evidence, in sentences.")
    fault: tuple[int, int] | None = Field(
        None, description="Stretch (ms, inclusive) that must not be learnt from."
    )
    ongoing: bool = Field(
        False, description="Whether some of the fault, or what came directly before, is left out."
    )
    metric: str = Field("", description="Name of the metric, which is also that of its signal.")
    signals: list[Signal] = []
    realised: Interval | None = Field(None, description="Metric of the version in the window.")
    reference: Interval | None = Field(None, description="Metric of the version on its hold-out.")
    gain: Interval | None = Field(None, description="Gain of a trivial baseline by a refit.")
    sharp: bool = Field(False, description="Whether the quality fell sharply, and stayed there.")
    agreement: Agreement | None = Field(
        None, description="Whether what is left out as a fault has become the rule."
    )
    regret: float = Field(0.0, description="Metric that a new version would have won.")
    remarks: list[str] = Field(
        [], description="What somebody should look at, though it changes no verdict."
    )
    action: str = Field("", description="What followed, in a sentence.")
    flow_run: str = Field("", description="Id of Prefect's run that recorded it.")

    @classmethod
    def of(
        cls,
        measurement: Measurement,
        signals: Mapping[str, Signal],
        diagnosis: Diagnosis,
        agreement: Agreement | None = None,
    ) -> "Finding":
        """The finding of a measured and diagnosed window."""
        quality = measurement.quality
        fault = diagnosis.fault
        ongoing = fault is not None and bool(touching(measurement.excluded, fault))
        return cls(
            model=measurement.model,
            version=measurement.version,
            start=measurement.start,
            end=measurement.end,
            groups=measurement.groups,
            holdout=measurement.holdout,
            verdict=diagnosis.verdict,
            reason=" ".join(diagnosis.evidence),
            fault=fault,
            ongoing=ongoing,
            sharp=diagnosis.sharp,
            agreement=agreement,
            metric=measurement.metric,
            signals=list(signals.values()),
            realised=quality and quality.realised,
            reference=measurement.reference,
            gain=quality and quality.gain,
            regret=diagnosis.regret,
            remarks=measurement.remarks,
        )

    def live_fell(self) -> bool:
        """Whether the live quality is below its reference, beyond its tolerance."""
        return any(s.name == self.metric and s.deviation < -1 for s in self.signals)
