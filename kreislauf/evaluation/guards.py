"""Why scores cannot be compared, and why a challenger must not go live whatever it gains."""

import math

import numpy as np

from kreislauf.evaluation.scores import Cost, Scores
from models.spec import Policy

BINS = 10
"""Number of bins of probabilities in which calibration is measured."""


def incomparable(scores: dict[str, Scores], policy: Policy) -> list[str]:
    """Why these scores say nothing; empty when they do."""
    challenger = scores["challenger"]
    reasons = []
    groups = len(np.unique(challenger.holdout.groups))
    if groups < policy.min_groups:
        reasons.append(
            f"The hold-out has {groups} groups, and the policy wants at least {policy.min_groups}."
        )
    if "baseline" not in scores:
        reasons.append(
            "There are no scores of the trivial baseline, without which nothing is promoted."
        )
    if "champion" in scores:
        reasons += _wrong_rival(challenger, scores["champion"])
    for name, answered in scores.items():
        reasons += _unusable(name, answered, challenger)
    return reasons


def _wrong_rival(challenger: Scores, champion: Scores) -> list[str]:
    """Why the two are not a version and a later one."""
    if (challenger.version, challenger.onnx) == (champion.version, champion.onnx):
        return [f"The challenger is the champion, version {champion.version}."]
    if challenger.onnx == champion.onnx:
        return [f"The challenger is the same file as the champion, version {champion.version}."]
    numbered = challenger.version is not None and champion.version is not None
    if numbered and challenger.version > champion.version:  # type: ignore[operator]
        return []
    return [
        f"The challenger, version {challenger.version}, is no later than the champion, version "
        f"{champion.version}: are they swapped? To go back to an earlier version, roll back."
    ]


def _unusable(name: str, scores: Scores, challenger: Scores) -> list[str]:
    """What is wrong with the scores of one model."""
    reasons = []
    holdout = scores.holdout
    same_groups = np.array_equal(holdout.groups, challenger.holdout.groups)
    if holdout.digest != challenger.holdout.digest or not same_groups:
        reasons.append(f"The {name} answered a different hold-out than the challenger.")
    if scores.values.shape != holdout.groups.shape:
        reasons.append(
            f"The {name} has scores of shape {scores.values.shape} for {len(holdout.groups)} "
            "examples."
        )
    elif not np.isfinite(scores.values).all():
        count = int((~np.isfinite(scores.values)).sum())
        reasons.append(f"{count} scores of the {name} are not numbers.")
    if scores.metric != challenger.metric:
        reasons.append(
            f"The {name} was scored by {scores.metric}, the challenger by {challenger.metric}."
        )
    if scores.trained_until > challenger.holdout.start:
        reasons.append(f"The {name} was trained on part of the hold-out.")
    return reasons


def refusals(scores: dict[str, Scores], facts: dict, policy: Policy) -> list[str]:
    """Why the challenger must not go live however much it gains; empty when nothing speaks against
    it."""
    challenger = scores["challenger"]
    over_baseline = facts["over_baseline"]
    reasons = []
    if over_baseline.high < -policy.baseline_margin:
        reasons.append(
            f"The challenger is worse than the trivial baseline: {facts['metric']} {over_baseline}."
        )
    for each in facts["slices"]:
        if each.gain.high < -policy.slice_margin:
            reasons.append(f"The challenger loses more than {policy.slice_margin} where {each}.")
    rival = scores.get("champion") or scores["baseline"]
    reasons += _too_expensive(challenger.cost, rival.cost, policy)
    if challenger.probabilities is not None:
        error = calibration_error(challenger.probabilities, challenger.values)
        if not error <= policy.calibration:
            reasons.append(
                f"The challenger's probabilities are off by {error:.3f} on average; "
                f"{policy.calibration} is allowed."
            )
    return reasons


def _too_expensive(cost: Cost | None, rival: Cost | None, policy: Policy) -> list[str]:
    """What serving the challenger takes more than is allowed."""
    if cost is None:
        return ["What serving the challenger takes was not measured."]
    reasons = []
    if not cost.p95_ms <= policy.p95_ms:
        reasons.append(
            f"The challenger's p95 is {cost.p95_ms:.1f} ms; {policy.p95_ms:g} ms are allowed."
        )
    if not cost.megabytes <= policy.megabytes:
        reasons.append(
            f"The challenger's file has {cost.megabytes:.1f} MB; {policy.megabytes:g} MB are "
            "allowed."
        )
    if cost.coverage is not None and rival and rival.coverage is not None:
        least = policy.coverage * rival.coverage
        if not cost.coverage >= least:
            reasons.append(
                f"The challenger answers with {cost.coverage:.1%} of the catalogue; {least:.1%} is "
                "the least."
            )
    return reasons


def calibration_error(probabilities: np.ndarray, right: np.ndarray) -> float:
    """Expected calibration error in `BINS` bins of equal width, 0 to 1; NaN if a probability is
    none.

    Naeini et al., "Obtaining Well Calibrated Probabilities Using Bayesian Binning", 2015.
    """
    if not ((probabilities >= 0) & (probabilities <= 1)).all():
        return math.nan
    index = np.minimum((probabilities * BINS).astype(int), BINS - 1)
    return float(np.abs(np.bincount(index, probabilities - right, BINS)).sum() / len(right))
