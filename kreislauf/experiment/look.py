"""Look at an experiment that runs: see what its users did, judge it, and write it down."""

import numpy as np

from kreislauf import exposures, lake
from kreislauf.clock import DAY_MS, when
from kreislauf.experiment import design, effect, record, running, users, verdict
from kreislauf.experiment.design import Design
from kreislauf.experiment.effect import Moments
from kreislauf.experiment.record import Record
from kreislauf.experiment.running import Running
from kreislauf.experiment.users import Counts, Observation
from kreislauf.experiment.verdict import Gap, Look, Users, Verdict
from kreislauf.exposures import ARMS, Arm
from kreislauf.release.releases import HOLD_BACK_DAYS, NO_MODEL

MOST_HOLD_BACK_DAYS = verdict.PATIENCE * HOLD_BACK_DAYS
"""Days after which a hold-back ends that could not be judged."""
STOPS = ("harm", "mismatch")
"""Outcomes that end an experiment whatever was seen before."""
ENDS = (*STOPS, "undecided")
"""Outcomes after which nothing more is judged."""


def take(test: Running, maturity: int = exposures.MATURITY_MS, flow_run: str = "") -> Record | None:
    """The newest look at the experiment; None while nobody was shown anything.

    If nothing has arrived since the last look, or if that ended the experiment, it is that one. A
    benefit that waits for a person stays one, unless harm or lost users are seen. Answers younger
    than `maturity` (ms) do not count. Raises LakeError.
    """
    records = record.read(test.model, test.number)
    last = users.until(maturity)
    if last is None:
        return None
    if records and (records[-1].verdict.outcome in ENDS or records[-1].look.at >= last):
        return _or_silent(test, records[-1])
    observation = users.observe(test, last)
    if observation is None:
        return _never_seen(test, flow_run)
    agreed = test.terms.plan or plan(test, last)
    look = _look(test, observation, agreed, [each.look for each in records])
    newest_verdict = _judge(test, agreed, [*(each.look for each in records), look])
    was_better = bool(records) and records[-1].verdict.outcome == "benefit"
    if was_better and newest_verdict.outcome not in STOPS:
        bounds = newest_verdict.model_dump(include={"harm_bound", "benefit_bound"})
        newest_verdict = records[-1].verdict.model_copy(update=bounds)
    newest = Record(
        model=test.model,
        release=test.number,
        look=look,
        counts=observation.counts,
        verdict=newest_verdict,
        flow_run=flow_run,
    )
    record.write(newest)
    return newest


def _never_seen(test: Running, flow_run: str) -> Record | None:
    """That a hold-back ends of which no answer could be judged, because feedback had stopped before
    it began; None until then."""
    shown = lake.watermark(exposures.EXPOSURES) or 0
    days = (shown - (test.begin.at or shown)) / DAY_MS
    if not test.is_hold_back or days <= MOST_HOLD_BACK_DAYS:
        return None
    nobody = dict.fromkeys(ARMS, 0)
    counts = Counts(
        assigned=nobody,
        answered=nobody,
        answers=0,
        anonymous_answers=0,
        users_in_both=0,
        busy_users=0,
    )
    look = Look(
        number=0,
        days=days,
        at=shown,
        assigned=Users(**nobody),
        answered=Users(**nobody),
        kpi=Gap(**dict.fromkeys(Gap.model_fields, 0.0)),
    )
    reason = "Feedback had stopped before it began, so nothing could be judged."
    return Record(
        model=test.model,
        release=test.number,
        look=look,
        counts=counts,
        verdict=Verdict(outcome="undecided", reason=reason),
        flow_run=flow_run,
    )


def _or_silent(test: Running, newest: Record) -> Record:
    """The newest look, or that nothing more is seen because feedback has stopped, which ends a
    hold-back at last."""
    shown = lake.watermark(exposures.EXPOSURES) or 0
    taken = lake.watermark(exposures.FEEDBACK) or shown
    if newest.verdict.outcome in ENDS or shown - taken < DAY_MS:
        return newest
    reason = (
        f"Feedback has stopped: there is none since {when(taken)} UTC. Nothing is judged until "
        "some comes. Does the shop still send it?"
    )
    outcome = "running"
    if test.is_hold_back and shown - newest.begin > MOST_HOLD_BACK_DAYS * DAY_MS:
        outcome = "undecided"
    silence = newest.verdict.model_copy(update={"outcome": outcome, "reason": reason})
    return newest.model_copy(update={"verdict": silence})


def plan(test: Running, last: int) -> Design | None:
    """Plan the experiment from what users did until `last` (ms), and keep the plan; None if nobody
    can say yet how long it takes."""
    history = users.history(test.model, last, test.terms.kpi)
    if history is None:
        return None
    moments, days = history
    if test.is_hold_back:
        agreed = design.hold_back(moments, days, test.share)
    else:
        agreed = design.plan(moments, days, test.share, test.terms.minimum_effect)
    if agreed is None:
        return None
    running.write_plan(test, agreed)
    return agreed


def _look(test: Running, seen: Observation, plan: Design | None, earlier: list[Look]) -> Look:
    """What was seen, and whether a planned look is due."""
    gaps = {
        f"{kind}s per answer": _gap(test, {arm: seen.arms[arm][kind] for arm in ARMS})
        for kind in test.terms.kinds
    }
    kpi = gaps.pop(f"{test.terms.kpi}s per answer")
    look = Look(
        number=0,
        days=(seen.until - seen.begin) / DAY_MS,
        at=seen.until,
        assigned=_users(test, seen.counts.assigned),
        answered=_users(test, _answered(test, seen)),
        kpi=kpi,
        guardrails=gaps,
        slices={name: _gap(test, arms) for name, arms in seen.slices.items()},
    )
    if plan is None:
        return look
    number = design.look_number(look.information, look.days, plan)
    if not look.information or number <= max((each.number for each in earlier), default=0):
        return look
    return look.model_copy(update={"number": number})


def _answered(test: Running, seen: Observation) -> dict[str, int]:
    """Users whom the version of their arm has answered; if one arm has none, all of them, because
    only the other one has a fallback."""
    if test.reference_version == NO_MODEL:
        return seen.counts.assigned
    return seen.counts.answered


def _users(test: Running, by_arm: dict[str, int]) -> Users:
    """Numbers of users, by the part of their arm."""
    return Users(champion=by_arm[test.reference_arm], challenger=by_arm[test.judged_arm])


def _gap(test: Running, arms: dict[Arm, Moments]) -> Gap:
    """The difference between the arms in a kind of reaction."""
    with np.errstate(divide="ignore", invalid="ignore"):
        estimate = effect.difference(arms[test.reference_arm], arms[test.judged_arm])
    values = np.array(estimate, float)
    if not np.isfinite(values).all():
        # An arm has no answers yet, or nobody has reacted.
        values = np.zeros(len(values))
    return Gap(**dict(zip(estimate._fields, values.tolist(), strict=True)))


def _judge(test: Running, plan: Design | None, looks: list[Look]) -> Verdict:
    """The verdict; without a plan, only lost users are judged, and a hold-back ends at last."""
    parts = verdict.A_B_TEST
    if test.is_hold_back:
        parts = verdict.HOLD_BACK
    if plan is not None:
        return verdict.judge(plan, looks, parts)
    mismatch = verdict.lost_users(test.share, looks[-1], parts)
    if mismatch:
        return Verdict(outcome="mismatch", reason=mismatch)
    if test.is_hold_back and looks[-1].days > MOST_HOLD_BACK_DAYS:
        return Verdict(outcome="undecided", reason="Too few users have reacted for a judgement.")
    return Verdict(outcome="running", reason=running.NO_PLAN)
