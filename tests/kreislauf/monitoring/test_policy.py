"""What follows from a finding: from faults that a person trusts, and from repeated alarms."""

import polars as pl
import pytest

from kreislauf.clock import HOUR_MS, when
from kreislauf.monitoring import alarms, policy
from kreislauf.monitoring.finding import Finding
from kreislauf.monitoring.policy import LOOK, Standing
from kreislauf.pages import monitor as pages

SETTINGS = policy.Settings(min_gain=0.01)
HOURS = [1_767_225_600_000 + hour * HOUR_MS for hour in range(24)]
ADA = "Ada trusts the rows: a sale."


def decide(fault: tuple[int, int] | None, *trusted: tuple[int, int]) -> policy.Action:
    standing = Standing(trusted=list(trusted), trust=ADA * bool(trusted))
    return policy.decide(finding(fault), standing, SETTINGS)


def finding(fault: tuple[int, int] | None) -> Finding:
    return Finding(
        model="tiny",
        version=1,
        start=HOURS[0],
        end=HOURS[20] - 1,
        groups=500,
        verdict="data fault",
        reason="Remapped ids.",
        fault=fault,
    )


def test_a_fault_that_a_person_trusts_is_neither_excluded_nor_reported():
    fault = (HOURS[4], HOURS[12] - 1)
    for trusted in (fault, (HOURS[3], HOURS[13]), (HOURS[5], HOURS[10])):
        action = decide(fault, trusted)
        assert (action.exclude, action.event, action.alarm) == (None, None, False)
        assert action.sentence == f"{ADA} So nothing is left out."
        page = pages.consequence(finding(fault), action)
        assert page == "but a person trusts it, so nothing is left out"


def test_a_page_says_that_somebody_was_asked_while_the_question_is_open():
    asked = policy.Action(sentence="Is it new?", alarm=False, wait="Is it new?")
    page = pages.consequence(finding((HOURS[4], HOURS[12] - 1)), asked)
    assert page == "and somebody was asked whether its assortment is new"


def test_of_a_fault_that_is_trusted_in_part_the_rest_is_excluded_and_named():
    action = decide((HOURS[4], HOURS[12] - 1), (HOURS[5], HOURS[8] - 1))
    assert action.event == "fault"
    assert action.exclude == (HOURS[4], HOURS[12] - 1)
    named = [when(HOURS[4]), when(HOURS[5] - 1), when(HOURS[8]), when(HOURS[12] - 1)]
    first = "No training will learn from {} to {} and from {} to {}; the rows stay in the table. "
    assert action.sentence == first.format(*named) + ADA
    assert decide((HOURS[4], HOURS[12] - 1)).sentence.endswith("the rows stay in the table.")


@pytest.mark.parametrize(("hours", "sentence"), [(11, f"{ADA} So nothing is left out."), (9, LOOK)])
def test_a_fault_without_a_stretch_is_the_whole_window(hours: int, sentence: str):
    assert decide(None, (HOURS[0], HOURS[hours] - 1)).sentence == sentence


def drifting(start: int, end: int, version: int = 1) -> Finding:
    return Finding(
        model="tiny",
        version=version,
        start=HOURS[start],
        end=HOURS[end] - 1,
        groups=500,
        verdict="concept drift",
        reason="The live model lost a little.",
        regret=0.001,
    )


def row(finding: Finding, action: policy.Action) -> pl.DataFrame:
    return pl.DataFrame([finding.model_dump(include=alarms.COLUMNS) | {"action": action.sentence}])


def action_after(finding: Finding, raised: pl.DataFrame) -> policy.Action:
    standing = policy.standing_of(finding, pl.DataFrame(), raised, [], 0)
    return policy.decide(finding, standing, SETTINGS)


def test_windows_that_overlap_raise_an_alarm_with_the_same_verdict_once():
    first = drifting(0, 10)
    alarm = action_after(first, pl.DataFrame())
    assert alarm.alarm
    raised = row(first, alarm)
    assert not action_after(drifting(4, 14), raised).alarm
    assert action_after(drifting(10, 20), raised).alarm
    assert action_after(drifting(4, 14, version=2), raised).alarm
    shift = drifting(4, 14).model_copy(update={"verdict": "covariate shift"})
    assert action_after(shift, raised).alarm
    assert not action_after(shift, row(shift, policy.Action())).alarm


def test_an_alarm_that_asks_for_a_retraining_is_raised_whatever_was_before():
    first = drifting(0, 10)
    raised = row(first, policy.Action())
    action = action_after(drifting(4, 14).model_copy(update={"sharp": True}), raised)
    assert action.asks_for_retraining
    assert action.alarm
