"""What follows from a finding: a pure decision, and what has to be looked up for it."""

from typing import Any, Literal

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from kreislauf import registry
from kreislauf.clock import when
from kreislauf.lake import exclusions
from kreislauf.lake.exclusions import HumanVerdict, Stretch
from kreislauf.monitoring import regret, tables
from kreislauf.monitoring.finding import Finding
from models import spec
from models.spec import Policy

RETRAINING_COST = 0.25
"""Default cost of a training, in the metric times days; benchmarks/frequency.py has what
others come to."""
ASKED = "A retraining is asked for."
QUESTION = "A person is asked."
LOOK = "Somebody should look at it; trainings still learn from it."
WAIT = "Trainings wait until it is clear."
WATCH = "Nothing to do but to watch."
REPEATED = "An overlapping window has said so."
MIN_TRUSTED = 0.5
"""Share of a fault above which who trusts it has seen the fault: the next windows draw its ends
elsewhere."""


class Settings(BaseModel):
    """When concept drift is a reason to ask for a retraining."""

    model_config = ConfigDict(frozen=True)

    min_gain: float = Field(description="Smallest gain of the metric that is worth a training.")
    confirmations: int = Field(
        1, description="Number of the newest `out_of` windows that must say concept drift."
    )
    out_of: int = Field(1, description="Windows of which `confirmations` must agree.")
    retraining_cost: float = Field(
        RETRAINING_COST, description="Cost of a training, in the metric times days."
    )

    @classmethod
    def of(cls, gate_policy: Policy, given: dict[str, Any]) -> "Settings":
        """The settings that were `given`; without `min_gain`, the policy's `decay`.

        Raises ValueError if `confirmations` is not from 1 to `out_of`.
        """
        confirmations = given["confirmations"]
        out_of = given["out_of"]
        if not 1 <= confirmations <= out_of:
            raise ValueError(
                f"confirmations is {confirmations} and out_of is {out_of}: "
                f"ask for 1 to {out_of} of the newest {out_of} windows."
            )
        if given["min_gain"] is None:
            given = given | {"min_gain": gate_policy.decay}
        return cls(**given)


class Standing(BaseModel):
    """What earlier windows have said about a version since the last training."""

    model_config = ConfigDict(frozen=True)

    verdicts: list[str] = Field(
        [], description="Verdicts of windows that do not overlap, this one first."
    )
    accumulated_regret: float = Field(
        0.0, description="Regret of these windows, in the metric times days."
    )
    fault_reported: bool = Field(
        False, description="Whether somebody was asked to look at an overlapping window."
    )
    alarm_raised: bool = Field(
        False, description="Whether an overlapping window has raised an alarm with this verdict."
    )
    question: str = Field(
        "", description="What a person was asked about such a fault, and has not answered."
    )
    rejected: bool = Field(
        False, description="Whether the answer was that the rows are wrong, and it is not over."
    )
    trusted: list[Stretch] = Field([], description="What people trust, in order and apart.")
    trust: str = Field("", description="Who trusts tail of the fault, which, and why.")


class Action(BaseModel):
    """What follows from a finding."""

    model_config = ConfigDict(frozen=True)

    sentence: str = Field("", description="What follows, for people; empty if nothing does.")
    alarm: bool = Field(True, description="Whether the verdict belongs into the table of alarms.")
    event: Literal["fault", "question", "drift", "decay"] | None = None
    wait: str = Field("", description="Why trainings wait; empty if they need not.")
    exclude: tuple[int, int] | None = Field(
        None, description="Stretch (ms, inclusive) that is left out of every later training."
    )

    @property
    def asks_for_retraining(self) -> bool:
        """Whether the event starts a retraining."""
        return self.event in ("drift", "decay")


def standing(finding: Finding) -> Standing:
    """Look up what earlier windows have said, for a verdict that depends on it. Raises LakeError,
    RegistryError."""
    if finding.verdict == "stable":
        return Standing()
    trained = registry.finished(finding.model)
    since = 0
    if trained:
        since = trained.lineage.watermark
    mine = {"model": finding.model, "version": finding.version}
    windows = tables.read(tables.WINDOWS, pl.col("end") > since, **mine)
    alarms = tables.read(tables.ALARMS, model=finding.model)
    verdicts = exclusions.verdicts(spec.load(finding.model).table.name)
    return standing_of(finding, windows, alarms, verdicts, since)


def standing_of(
    finding: Finding,
    windows: pl.DataFrame,
    alarms: pl.DataFrame,
    verdicts: list[HumanVerdict],
    since: int,
) -> Standing:
    """What earlier `windows` and `alarms`, rows of the tables of these names, and people's
    `verdicts` have said since the last training, whose data ended at `since` (ms)."""
    newest = (finding.start, finding.end, finding.verdict, finding.regret)
    side_by_side = regret.non_overlapping(windows, finding.model, finding.version, since, newest)
    return Standing(
        verdicts=side_by_side["verdict"].to_list(),
        accumulated_regret=regret.accumulated_regret(side_by_side, since),
        fault_reported=_overlapping(finding, alarms, action=LOOK),
        alarm_raised=_overlapping(
            finding, alarms, version=finding.version, verdict=finding.verdict
        ),
        **_question(finding, windows, alarms, verdicts),
        **_trust(finding, verdicts),
    )


def _trust(finding: Finding, verdicts: list[HumanVerdict]) -> dict[str, Any]:
    """`trusted` and `trust` of `Standing`."""
    if finding.verdict != "data fault":
        return {}
    fault = _fault(finding)
    binding = [verdict for verdict in verdicts if verdict.binds(finding.holdout)]
    reasons = [v.sentence for v in binding if v.trusted and v.touches(fault)]
    return {"trusted": exclusions.combine(binding), "trust": "".join(reasons[-1:])}


def _fault(finding: Finding) -> Stretch:
    """The stretch that is faulty: the window where none was named."""
    return finding.fault or (finding.start, finding.end)


def _overlapping(finding: Finding, alarms: pl.DataFrame, **values: Any) -> bool:
    """Whether there is an alarm with these `values` about a window that overlaps with this one."""
    if alarms.is_empty():
        return False
    earlier = alarms.filter(pl.col("end") >= finding.start, model=finding.model, **values)
    return earlier.height > 0


def _question(
    finding: Finding, windows: pl.DataFrame, alarms: pl.DataFrame, verdicts: list[HumanVerdict]
) -> dict[str, Any]:
    """`question` and `rejected` of `Standing`: of the newest question about ids that mean
    something else, unless a stable window came after it.

    A verdict answers it that reaches to its end. It stays open however long nobody answers: what
    was left out before it is days ago then.
    """
    if alarms.is_empty():
        return {}
    mine = {"model": finding.model, "version": finding.version}
    asked = alarms.filter(pl.col("action").str.starts_with(QUESTION), **mine).sort("end")
    if asked.is_empty():
        return {}
    end, action = asked.select("end", "action").row(-1)
    if not windows.is_empty() and windows.filter(pl.col("end") >= end, verdict="stable").height:
        return {}
    answers = [v for v in verdicts if v.stretch[1] >= end and v.binds(finding.holdout)]
    if not answers:
        return {"question": action}
    return {"rejected": not answers[-1].trusted}


def decide(finding: Finding, standing: Standing, settings: Settings) -> Action:
    """What follows from a finding, given what earlier windows have said.

    A retraining is asked for when the accumulated regret has reached its cost: the ski-rental
    rule, which costs at most twice the best policy in hindsight (Karlin, Manasse, Rudolph and
    Sleator, "Competitive snoopy caching", 1988). A quality that fell sharply and stayed there asks
    at once: the rule is for losses of which nobody knows whether they go on.

    Windows of two looks share most of their sessions. What one of them has raised an alarm for,
    the next does not raise again, unless something follows from it.

    Trainings wait for the answer to an open question, whatever the newest window says.
    """
    action = _of_verdict(finding, standing, settings)
    if not standing.question or finding.verdict == "stable":
        return action
    waiting = action.model_copy(update={"wait": standing.question})
    if action.asks_for_retraining:
        return waiting.model_copy(update={"event": None, "sentence": standing.question})
    return waiting


def _of_verdict(finding: Finding, standing: Standing, settings: Settings) -> Action:
    if finding.verdict in ("stable", "not enough data"):
        return Action(alarm=False)
    if finding.verdict == "undecided":
        return Action(sentence=WAIT, alarm=False, wait=finding.reason)
    if finding.verdict == "data fault":
        return _after_fault(finding, standing)
    if finding.verdict == "covariate shift":
        return Action(sentence=WATCH, alarm=not standing.alarm_raised)
    confirmed = standing.verdicts[: settings.out_of].count("concept drift")
    if confirmed < settings.confirmations:
        return Action(
            sentence=f"{confirmed} of the newest {settings.out_of} windows say so; "
            f"{settings.confirmations} are needed for a retraining.",
            alarm=not standing.alarm_raised,
        )
    if standing.accumulated_regret < settings.retraining_cost and not finding.sharp:
        return Action(
            sentence=f"The accumulated regret is {standing.accumulated_regret:.3f} (metric times "
            f"days), and a retraining costs {settings.retraining_cost:g}.",
            alarm=not standing.alarm_raised,
        )
    if finding.live_fell():
        return Action(sentence=ASKED, event="decay")
    return Action(sentence=ASKED, event="drift")


def _after_fault(finding: Finding, standing: Standing) -> Action:
    start, end = _fault(finding)
    rest = exclusions.subtract([(start, end)], standing.trusted)
    untrusted = sum(last - first + 1 for first, last in rest)
    if untrusted < (1 - MIN_TRUSTED) * (end - start + 1):
        return Action(sentence=f"{standing.trust} So nothing is left out.", alarm=False)
    if standing.question and finding.agreement:
        return Action(sentence=standing.question, alarm=False)
    if finding.agreement and finding.agreement.reached and not standing.rejected:
        question = f"{QUESTION} {finding.agreement.question}"
        return Action(sentence=question, event="question", wait=question)
    if finding.fault:
        stretches = " and from ".join(f"{when(first)} to {when(last)}" for first, last in rest)
        sentence = f"No training will learn from {stretches}; the rows stay in the table."
        if standing.trust:
            sentence += f" {standing.trust}"
        exclude = (rest[0][0], rest[-1][1])
        if finding.ongoing:
            sentence = f"The fault goes on. {sentence}"
            return Action(sentence=sentence, alarm=False, exclude=exclude)
        return Action(sentence=sentence, event="fault", exclude=exclude)
    if standing.fault_reported:
        return Action(sentence=REPEATED)
    return Action(sentence=LOOK, event="fault")
