"""Look at an experiment that runs: see what its users did, judge it, and write it down."""

from kreislauf.clock import DAY_MS
from kreislauf.experiment import design, effect, record, running, users, verdict
from kreislauf.experiment.design import Design
from kreislauf.experiment.record import Record
from kreislauf.experiment.running import Running
from kreislauf.experiment.users import Observation
from kreislauf.experiment.verdict import Gap, Look, Users, Verdict
from kreislauf.exposures import Kind


def take(test: Running, maturity: int = users.MATURITY_MS, flow_run: str = "") -> Record | None:
    """The newest look at the experiment; None while nobody was shown anything.

    If nothing has arrived since the last look, or if that ended the experiment, it is that one.
    Answers younger than `maturity` (ms) do not count. Raises LakeError.
    """
    records = record.read(test.model, test.number)
    last = users.until(maturity)
    if last is None:
        return None
    if records and (records[-1].verdict.outcome != "running" or records[-1].look.at >= last):
        return records[-1]
    observation = users.observe(test, last)
    if observation is None:
        return None
    agreed = test.terms.plan or plan(test, last)
    look = _look(test, observation, agreed, [each.look for each in records])
    newest = Record(
        model=test.model,
        release=test.number,
        look=look,
        counts=observation.counts,
        verdict=_judge(test, agreed, [*(each.look for each in records), look]),
        flow_run=flow_run,
    )
    record.write(newest)
    return newest


def plan(test: Running, last: int) -> Design | None:
    """Plan the experiment from what users did until `last` (ms), and keep the plan; None if nobody
    can say yet how long it takes."""
    history = users.history(test.model, last, test.terms.kpi)
    if history is None:
        return None
    moments, days = history
    if int(moments.users) < verdict.MIN_USERS or not float(moments.rate) > 0:
        return None
    agreed = design.plan(moments, days, test.release.share, test.terms.minimum_effect)
    running.write_plan(test, agreed)
    return agreed


def _look(test: Running, seen: Observation, plan: Design | None, earlier: list[Look]) -> Look:
    """What was seen, and whether a planned look is due."""
    gaps = {f"{kind}s per answer": _gap(seen, kind) for kind in test.terms.kinds}
    kpi = gaps.pop(f"{test.terms.kpi}s per answer")
    look = Look(
        number=0,
        at=seen.until,
        assigned=Users(**seen.counts.assigned),
        answered=Users(**seen.counts.answered),
        kpi=kpi,
        guardrails=gaps,
    )
    if plan is None:
        return look
    days = (seen.until - seen.begin) / DAY_MS
    number = design.look_number(look.information, days, plan)
    if number <= max((each.number for each in earlier), default=0):
        return look
    return look.model_copy(update={"number": number})


def _gap(seen: Observation, kind: Kind) -> Gap:
    """The difference between the arms in a kind of reaction."""
    champion = seen.arms["champion"][kind]
    challenger = seen.arms["challenger"][kind]
    estimate = effect.difference(champion, challenger)
    return Gap(**{name: float(value) for name, value in estimate._asdict().items()})


def _judge(test: Running, plan: Design | None, looks: list[Look]) -> Verdict:
    """The verdict; without a plan, only lost users are judged."""
    if plan is not None:
        return verdict.judge(plan, looks)
    mismatch = verdict.lost_users(test.release.share, looks[-1])
    if mismatch:
        return Verdict(outcome="mismatch", reason=mismatch)
    return Verdict(outcome="running", reason=running.NO_PLAN)
