"""The decision to replace a live model: a pure function over scores of both models on the same hold-out."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from models.spec import Policy

RESAMPLES = 2_000

Outcome = Literal["promote", "refuse", "inconclusive"]


@dataclass(frozen=True)
class Scores:
    """How well one model answered the hold-out."""

    values: np.ndarray
    """Metric per example, shape (n,), higher is better."""
    groups: np.ndarray
    """Group of each example, shape (n,)."""
    digest: str
    """Of the examples: only scores with the same digest can be compared."""
    trained_until: int
    """End of what the model learnt from, ms since 1970 UTC, exclusive."""


class Interval(BaseModel):
    """A mean difference and its bootstrap interval."""

    model_config = ConfigDict(frozen=True)

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:+.4f} [{self.low:+.4f}, {self.high:+.4f}]"


class Decision(BaseModel):
    """What the gate says, and why. Serves as the tag on the version and as the artifact in the UI."""

    model_config = ConfigDict(frozen=True)

    outcome: Outcome
    reasons: list[str] = Field(description="Plain sentences.")
    metric: str
    challenger: float | None = Field(None, description="Score on the hold-out.")
    champion: float | None = None
    baseline: float | None = None
    gain: Interval | None = Field(None, description="Challenger minus champion.")
    over_baseline: Interval | None = Field(None, description="Challenger minus trivial baseline.")
    reference: Interval | None = Field(None, description="The challenger's own score: what decay is measured against.")
    groups: int = 0
    holdout: str = Field("", description="Digest of the hold-out.")
    champion_version: int | None = None


def decide(
    challenger: Scores, champion: Scores | None, baseline: Scores, policy: Policy, metric: str, holdout_start: int
) -> Decision:
    """Promote only what is proven better on a hold-out that neither model has seen; otherwise refuse or say unsure.

    The interval is a paired percentile bootstrap over groups (Efron & Tibshirani 1993, ch. 13; resampling whole
    groups: Davison & Hinkley 1997, 2.4). The trivial baseline is a guard: the challenger must be shown to be no worse
    than it by `policy.baseline_margin`. Without a champion that is the whole rule.
    """
    others = {"baseline": baseline} | ({"champion": champion} if champion else {})
    broken = _broken({"challenger": challenger, **others}, policy, holdout_start)
    facts: dict = {"metric": metric, "holdout": challenger.digest, "groups": len(np.unique(challenger.groups))}
    if broken:
        return Decision(outcome="refuse", reasons=broken, **facts)
    over_baseline = difference(challenger, baseline, policy.confidence)
    facts |= {
        "challenger": float(challenger.values.mean()),
        "baseline": float(baseline.values.mean()),
        "champion": float(champion.values.mean()) if champion else None,
        "over_baseline": over_baseline,
        "reference": difference(challenger, None, policy.confidence),
        "gain": difference(challenger, champion, policy.confidence) if champion else None,
    }
    if over_baseline.low < -policy.baseline_margin:
        refused = over_baseline.high < -policy.baseline_margin
        says = "is worse than" if refused else "is not shown to be as good as"
        reason = f"The challenger {says} the trivial baseline: {metric} {over_baseline}."
        return Decision(outcome="refuse" if refused else "inconclusive", reasons=[reason], **facts)
    if facts["gain"] is None:
        reason = f"No champion yet, and the challenger is no worse than the trivial baseline: {metric} {over_baseline}."
        return Decision(outcome="promote", reasons=[reason], **facts)
    return Decision(**_verdict(facts["gain"], policy, metric), **facts)


def difference(one: Scores, other: Scores | None, confidence: float) -> Interval:
    """Mean of `one` minus mean of `other` (or of nothing) with its interval; groups are resampled whole."""
    values = one.values - (other.values if other else 0.0)
    _, index = np.unique(one.groups, return_inverse=True)
    sums, counts = np.bincount(index, values), np.bincount(index)
    means = resampled_means(sums, counts)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(mean=float(values.mean()), low=float(low), high=float(high))


def resampled_means(sums: np.ndarray, counts: np.ndarray, resamples: int = RESAMPLES) -> np.ndarray:
    """Means over examples in `resamples` bootstrap samples of groups, given each group's sum and count; shape (r,)."""
    rng = np.random.default_rng(0)
    means = np.empty(resamples)
    for start in range(0, resamples, 100):
        drawn = rng.integers(len(sums), size=(min(100, resamples - start), len(sums)))
        means[start : start + len(drawn)] = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    return means


def _verdict(gain: Interval, policy: Policy, metric: str) -> dict:
    if gain.low > 0:
        return {"outcome": "promote", "reasons": [f"The challenger is better than the champion: {metric} {gain}."]}
    if gain.high < policy.min_effect:
        reason = f"The challenger gains less than the {policy.min_effect} that a release is worth: {metric} {gain}."
        return {"outcome": "refuse", "reasons": [reason]}
    reason = f"Neither better nor not better is shown: {metric} {gain}. More data after this hold-out may decide it."
    return {"outcome": "inconclusive", "reasons": [reason]}


def _broken(scores: dict[str, Scores], policy: Policy, holdout_start: int) -> list[str]:
    """Why these scores cannot be compared; empty when they can."""
    first, found = scores["challenger"], []
    groups = len(np.unique(first.groups))
    if groups < policy.min_groups:
        found.append(f"The hold-out has {groups} groups, and the policy wants at least {policy.min_groups}.")
    for name, one in scores.items():
        if one.digest != first.digest or len(one.values) != len(first.values):
            found.append(f"The {name} answered a different hold-out than the challenger.")
        if not np.isfinite(one.values).all():
            found.append(f"{int((~np.isfinite(one.values)).sum())} scores of the {name} are not numbers.")
        if one.trained_until > holdout_start:
            found.append(f"The {name} was trained on part of the hold-out.")
    return found
