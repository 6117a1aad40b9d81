"""Conditions on which a version goes live."""

from pydantic import BaseModel, Field


class Policy(BaseModel):
    """Conditions on which a challenger replaces the champion; they depend on the metric."""

    min_effect: float = Field(0.02, gt=0, description="Minimum gain that is worth a release.")
    group_sd: float = Field(
        0.35, gt=0, description="Assumed deviation of a group's difference between two models."
    )
    power: float = Field(0.8, gt=0, lt=1, description="Chance to detect a gain of `min_effect`.")
    confidence: float = Field(
        0.95, gt=0, lt=1, description="Confidence level of the two-sided interval that decides."
    )
    min_groups: int = Field(
        200, ge=2, description="Minimum groups of the hold-out on which a decision is taken."
    )
    baseline_margin: float = Field(
        0.005, ge=0, description="Loss against the trivial baseline that the interval must exclude."
    )
    superiority_margin: float = Field(
        0.0, description="Gain that the whole interval must exceed; below 0: non-inferiority."
    )
    slice_margin: float = Field(0.01, ge=0, description="Maximum loss that a slice may show.")
    slice_groups: int = Field(200, ge=2, description="Minimum groups of a slice that is tested.")
    p95_ms: float = Field(
        25.0, gt=0, description="Maximum milliseconds of 95 % of the requests with one example."
    )
    megabytes: float = Field(
        2_000.0, gt=0, description="Maximum size of the ONNX file, in 10^6 bytes."
    )
    coverage: float = Field(
        0.5, ge=0, le=1, description="Minimum share of the champion's coverage of the catalogue."
    )
    calibration: float = Field(0.05, gt=0, description="Maximum error of the mean probability.")
    day_sd: float = Field(0.0, ge=0, description="Assumed deviation of the metric between days.")
    decay: float = Field(0.01, gt=0, description="Loss against the reference that counts as decay.")
