"""The decision to replace a live model: a pure function over scores of both models on the same
hold-out."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from kreislauf.evaluation.intervals import Interval, intervals
from models.spec import Policy

BINS = 10
"""Of probabilities, where calibration is measured."""

Outcome = Literal["promote", "refuse", "inconclusive"]


@dataclass(frozen=True)
class Holdout:
    """What all models were asked."""

    digest: str
    """Of the examples, their order and their labels: only scores with the same digest can be
    compared."""
    start: int
    """Of the oldest example, ms since 1970 UTC."""
    groups: np.ndarray
    """Group of each example, shape (n,)."""
    slices: Mapping[str, np.ndarray] = field(default_factory=dict)
    """What kind each example is, strings of shape (n,), by what it is told from."""


@dataclass(frozen=True)
class Cost:
    """What serving a file takes, measured on one machine in one go."""

    p95_ms: float
    """Of requests with one example."""
    megabytes: float
    coverage: float | None = None
    """Share of all possible answers that it gave to anybody; None where that means nothing."""


@dataclass(frozen=True)
class Scores:
    """How well one model answered the hold-out."""

    values: np.ndarray
    """Metric per example, shape (n,), higher is better."""
    holdout: Holdout
    metric: str
    trained_until: int
    """End of what the model learnt from, ms since 1970 UTC, exclusive."""
    onnx: str
    """SHA-256 of the file that answered."""
    version: int | None = None
    """None for the trivial baseline."""
    cost: Cost | None = None
    probabilities: np.ndarray | None = None
    """How sure the model was that its answer is right, shape (n,), where it says so."""


class Slice(BaseModel):
    """Part of the hold-out."""

    model_config = ConfigDict(frozen=True)

    by: str
    value: str
    groups: int
    gain: Interval = Field(description="Challenger minus champion.")

    def __str__(self) -> str:
        return f"{self.by} {self.value} ({self.groups} groups): {self.gain}"


class Decision(BaseModel):
    """What the gate says, and why. Serves as the tag on the version and as the artifact in the
    UI."""

    model_config = ConfigDict(frozen=True)

    outcome: Outcome
    reasons: list[str] = Field(description="Plain sentences.")
    metric: str
    challenger: float | None = Field(None, description="Score on the hold-out.")
    champion: float | None = None
    baseline: float | None = None
    gain: Interval | None = Field(None, description="Challenger minus champion.")
    over_baseline: Interval | None = Field(None, description="Challenger minus trivial baseline.")
    reference: Interval | None = Field(
        None, description="The challenger's own score: what decay is measured against."
    )
    slices: list[Slice] = Field(
        [], description="Against the champion; the intervals hold for all of them at once."
    )
    costs: dict[str, Cost] = Field(
        {}, description="What serving takes: of challenger, champion, and baseline."
    )
    groups: int = 0
    needed: int | None = Field(
        None, description="Groups that would decide a gain like this, if it is inconclusive."
    )
    holdout: str = Field("", description="Digest of the hold-out.")
    champion_version: int | None = None


def decide(
    challenger: Scores, champion: Scores | None, baseline: Scores | None, policy: Policy
) -> Decision:
    """Promote only what is proven better on a hold-out that neither model has seen; otherwise
    refuse or say unsure.

    The interval is a paired percentile bootstrap over groups (Efron & Tibshirani 1993, ch. 13;
    resampling whole groups: Davison & Hinkley 1997, 2.4). Guards refuse whatever the gain: the
    trivial baseline, every slice, what serving takes, how much of the catalogue is left, and
    whether probabilities can be believed. Without a champion the guards are the whole rule.
    """
    given = {"challenger": challenger, "champion": champion, "baseline": baseline}
    scores = {name: one for name, one in given.items() if one is not None}
    facts: dict = {
        "metric": challenger.metric,
        "holdout": challenger.holdout.digest,
        "groups": len(np.unique(challenger.holdout.groups)),
        "champion_version": champion.version if champion else None,
    }
    if broken := incomparable(scores, policy):
        return Decision(outcome="refuse", reasons=broken, **facts)
    facts |= measure(scores, policy)
    if refused := guards(scores, facts, policy):
        return Decision(outcome="refuse", reasons=refused, **facts)
    return Decision(**_verdict(facts, policy), **facts)


def incomparable(scores: dict[str, Scores], policy: Policy) -> list[str]:
    """Why these scores say nothing; empty when they do."""
    first = scores["challenger"]
    champion = scores.get("champion")
    asked = first.holdout
    found = []
    groups = len(np.unique(asked.groups))
    if groups < policy.min_groups:
        found.append(
            f"The hold-out has {groups} groups, and the policy wants at least {policy.min_groups}."
        )
    if "baseline" not in scores:
        found.append(
            "There are no scores of the trivial baseline, without which nothing is promoted."
        )
    if champion and (first.version, first.onnx) != (champion.version, champion.onnx):
        if first.onnx == champion.onnx:
            found.append(
                f"The challenger is the same file as the champion, version {champion.version}."
            )
        elif first.version is None or champion.version is None or first.version <= champion.version:
            found.append(
                f"The challenger, version {first.version}, is no later than the champion, version {champion.version}: "
                "are they swapped? To go back to an earlier version, roll back."
            )
    elif champion:
        found.append(f"The challenger is the champion, version {champion.version}.")
    for name, one in scores.items():
        found += _unusable(name, one, first)
    return found


def _unusable(name: str, one: Scores, first: Scores) -> list[str]:
    """What is wrong with the scores of one model."""
    found = []
    asked = one.holdout
    if asked.digest != first.holdout.digest or not np.array_equal(
        asked.groups, first.holdout.groups
    ):
        found.append(f"The {name} answered a different hold-out than the challenger.")
    if one.values.shape != asked.groups.shape:
        found.append(
            f"The {name} has scores of shape {one.values.shape} for {len(asked.groups)} examples."
        )
    elif not np.isfinite(one.values).all():
        found.append(
            f"{int((~np.isfinite(one.values)).sum())} scores of the {name} are not numbers."
        )
    if one.metric != first.metric:
        found.append(f"The {name} was scored by {one.metric}, the challenger by {first.metric}.")
    if one.trained_until > first.holdout.start:
        found.append(f"The {name} was trained on part of the hold-out.")
    return found


def measure(scores: dict[str, Scores], policy: Policy) -> dict:
    """Means, differences and their intervals, overall and by slice: the fields of the decision."""
    challenger = scores["challenger"]
    baseline = scores["baseline"]
    champion = scores.get("champion")
    differences = {
        "reference": challenger.values,
        "over_baseline": challenger.values - baseline.values,
    }
    if champion:
        differences["gain"] = challenger.values - champion.values
    groups = challenger.holdout.groups
    found = dict(
        zip(differences, intervals([*differences.values()], groups, policy.confidence), strict=True)
    )
    means = {name: float(one.values.mean()) for name, one in scores.items()}
    parts = slices(differences["gain"], challenger.holdout, policy) if champion else []
    costs = {name: one.cost for name, one in scores.items() if one.cost is not None}
    return means | found | {"slices": parts, "costs": costs}


def slices(difference: np.ndarray, holdout: Holdout, policy: Policy) -> list[Slice]:
    """The mean of `difference` (n,) in every slice of at least `policy.slice_groups` groups, with
    intervals that hold for all slices at once (Bonferroni): a ratio of sums over groups (Cochran,
    "Sampling Techniques", 1977, ch. 6)."""
    parts = []
    for by, kinds in holdout.slices.items():
        for value in np.unique(kinds):
            inside = kinds == value
            _, index = np.unique(holdout.groups[inside], return_inverse=True)
            sums = np.bincount(index, difference[inside])
            counts = np.bincount(index)
            if len(counts) >= max(2, policy.slice_groups):
                parts.append((by, str(value), sums, counts))
    z = NormalDist().inv_cdf(1 - (1 - policy.confidence) / 2 / max(1, len(parts)))
    found = []
    for by, value, sums, counts in parts:
        n = len(counts)
        mean = sums.sum() / counts.sum()
        error = math.sqrt(n / (n - 1) * float(((sums - mean * counts) ** 2).sum())) / counts.sum()
        gain = Interval(mean=mean, low=mean - z * error, high=mean + z * error)
        found.append(Slice(by=by, value=value, groups=n, gain=gain))
    return found


def guards(scores: dict[str, Scores], facts: dict, policy: Policy) -> list[str]:
    """Why the challenger must not go live however much it gains; empty when nothing speaks against
    it."""
    challenger = scores["challenger"]
    metric = facts["metric"]
    found = []
    if facts["over_baseline"].high < -policy.baseline_margin:
        found.append(
            f"The challenger is worse than the trivial baseline: {metric} {facts['over_baseline']}."
        )
    for part in facts["slices"]:
        if part.gain.high < -policy.slice_margin:
            found.append(f"The challenger loses more than {policy.slice_margin} where {part}.")
    found += _costs(challenger.cost, (scores.get("champion") or scores["baseline"]).cost, policy)
    if challenger.probabilities is not None:
        error = calibration_error(challenger.probabilities, challenger.values)
        if not error <= policy.calibration:
            found.append(
                f"The challenger's probabilities are off by {error:.3f} on average; {policy.calibration} is allowed."
            )
    return found


def _costs(cost: Cost | None, rival: Cost | None, policy: Policy) -> list[str]:
    if cost is None:
        return ["What serving the challenger takes was not measured."]
    found = []
    if not cost.p95_ms <= policy.p95_ms:
        found.append(
            f"The challenger's p95 is {cost.p95_ms:.1f} ms; {policy.p95_ms:g} ms are allowed."
        )
    if not cost.megabytes <= policy.megabytes:
        found.append(
            f"The challenger's file has {cost.megabytes:.1f} MB; {policy.megabytes:g} MB are allowed."
        )
    if cost.coverage is not None and rival and rival.coverage is not None:
        least = policy.coverage * rival.coverage
        if not cost.coverage >= least:
            found.append(
                f"The challenger answers with {cost.coverage:.1%} of the catalogue; {least:.1%} is the least."
            )
    return found


def calibration_error(probabilities: np.ndarray, right: np.ndarray) -> float:
    """Expected calibration error in `BINS` bins of equal width, 0 to 1; NaN if a probability is
    none.

    Naeini et al., "Obtaining Well Calibrated Probabilities Using Bayesian Binning", 2015.
    """
    if not ((probabilities >= 0) & (probabilities <= 1)).all():
        return math.nan
    index = np.minimum((probabilities * BINS).astype(int), BINS - 1)
    return float(np.abs(np.bincount(index, probabilities - right, BINS)).sum() / len(right))


def _verdict(facts: dict, policy: Policy) -> dict:
    gain = facts.get("gain")
    metric = facts["metric"]
    over_baseline = facts["over_baseline"]
    if over_baseline.low < -policy.baseline_margin:
        reason = f"The challenger is not shown to be as good as the trivial baseline: {metric} {over_baseline}."
        return _undecided(
            reason, over_baseline, -policy.baseline_margin, -policy.baseline_margin, facts["groups"]
        )
    if gain is None:
        reason = f"No champion yet, and the challenger is no worse than the trivial baseline: {metric} {over_baseline}."
        return {"outcome": "promote", "reasons": [reason]}
    if gain.low > policy.least_gain:
        better = (
            "better than" if policy.least_gain >= 0 else f"no worse by {-policy.least_gain} than"
        )
        return {
            "outcome": "promote",
            "reasons": [f"The challenger is {better} the champion: {metric} {gain}."],
        }
    if gain.high < policy.min_effect:
        reason = f"The challenger gains less than the {policy.min_effect} that a release is worth: {metric} {gain}."
        return {"outcome": "refuse", "reasons": [reason]}
    reason = f"Neither better nor not better is shown: {metric} {gain}."
    return _undecided(reason, gain, policy.least_gain, policy.min_effect, facts["groups"])


def _undecided(reason: str, found: Interval, above: float, below: float, groups: int) -> dict:
    """Inconclusive; and how many groups would put the interval wholly above the one or below the
    other."""
    room = max(found.mean - above, below - found.mean)
    half = (found.high - found.low) / 2
    needed = math.ceil(groups * (half / room) ** 2) if room > 0 else None
    more = (
        f"About {needed} groups would decide a difference like this; the hold-out has {groups}."
        if needed
        else ""
    )
    return {"outcome": "inconclusive", "reasons": [f"{reason} {more}".strip()], "needed": needed}
