"""The decision to replace a live model: a pure function over scores of both models on the same
hold-out."""

import math

import numpy as np

from kreislauf.evaluation import comparison, guards
from kreislauf.evaluation.decision import Decision, Outcome, Slice
from kreislauf.evaluation.intervals import Interval
from kreislauf.evaluation.scores import Cost, Holdout, Scores
from models.spec import Policy

__all__ = ["Cost", "Decision", "Holdout", "Outcome", "Scores", "Slice", "decide"]


def decide(
    challenger: Scores, champion: Scores | None, baseline: Scores | None, policy: Policy
) -> Decision:
    """Promote only what is proven better on a hold-out that neither model has seen; otherwise
    refuse or say unsure.

    The confidence interval is a paired percentile bootstrap over groups (Efron & Tibshirani 1993,
    ch. 13; resampling whole groups: Davison & Hinkley 1997, 2.4). Guards refuse whatever the gain:
    the trivial baseline, every slice, what serving takes, how much of the catalogue is left, and
    whether probabilities can be believed. Without a champion the guards are the whole rule.
    """
    scores = {"challenger": challenger}
    facts: dict = {
        "metric": challenger.metric,
        "holdout": challenger.holdout.digest,
        "groups": len(np.unique(challenger.holdout.groups)),
        "champion_version": None,
    }
    if champion is not None:
        scores["champion"] = champion
        facts["champion_version"] = champion.version
    if baseline is not None:
        scores["baseline"] = baseline
    obstacles = guards.incomparable(scores, policy)
    if obstacles:
        return Decision(outcome="refuse", reasons=obstacles, **facts)
    facts |= comparison.compare(scores, policy)
    refusals = guards.refusals(scores, facts, policy)
    if refusals:
        return Decision(outcome="refuse", reasons=refusals, **facts)
    return Decision(**_verdict(facts, policy), **facts)


def _verdict(facts: dict, policy: Policy) -> dict:
    """What the confidence intervals say: outcome, reasons, and the groups that are needed."""
    gain = facts.get("gain")
    metric = facts["metric"]
    over_baseline = facts["over_baseline"]
    groups = facts["groups"]
    if over_baseline.low < -policy.baseline_margin:
        reason = (
            "The challenger is not shown to be as good as the trivial baseline: "
            f"{metric} {over_baseline}."
        )
        margin = -policy.baseline_margin
        return _undecided(reason, over_baseline, margin, margin, groups)
    if gain is None:
        reason = (
            "No champion yet, and the challenger is no worse than the trivial baseline: "
            f"{metric} {over_baseline}."
        )
        return {"outcome": "promote", "reasons": [reason]}
    if gain.low > policy.superiority_margin:
        better = "better than"
        if policy.superiority_margin < 0:
            better = f"no worse by {-policy.superiority_margin} than"
        reason = f"The challenger is {better} the champion: {metric} {gain}."
        return {"outcome": "promote", "reasons": [reason]}
    if gain.high < policy.min_effect:
        reason = (
            f"The challenger gains less than the {policy.min_effect} that a release is worth: "
            f"{metric} {gain}."
        )
        return {"outcome": "refuse", "reasons": [reason]}
    reason = f"Neither better nor not better is shown: {metric} {gain}."
    return _undecided(reason, gain, policy.superiority_margin, policy.min_effect, groups)


def _undecided(reason: str, interval: Interval, above: float, below: float, groups: int) -> dict:
    """Inconclusive; and how many groups would put the interval wholly above the one or below the
    other."""
    room = max(interval.mean - above, below - interval.mean)
    half = (interval.high - interval.low) / 2
    needed = None
    if room > 0:
        needed = math.ceil(groups * (half / room) ** 2)
    if needed:
        reason += (
            f" About {needed} groups would decide a difference like this; the hold-out has "
            f"{groups}."
        )
    return {"outcome": "inconclusive", "reasons": [reason], "needed": needed}
