"""What a look says, and in which words."""

import numpy as np
import pytest

from kreislauf.experiment import design, effect
from kreislauf.experiment.design import Design
from kreislauf.experiment.effect import Moments
from kreislauf.experiment.verdict import Gap, Look, Users, judge

PLAN = Design(share=0.5, minimum_effect=0.01, information=100_000, users=10_000, days=10)


def look(number: int, information: float, difference: float, **changes) -> Look:
    """A look with this share of the planned information."""
    variance = 1 / (information * PLAN.information)
    gap = Gap(
        difference=difference,
        variance=variance,
        unadjusted_variance=variance,
        champion_rate=0.1,
        error=0.05,
    )
    users = {"assigned": Users(champion=2_000, challenger=2_000)}
    users |= {"answered": users["assigned"]}
    return Look(number=number, days=1, at=0, kpi=gap, **users | changes)


def test_an_experiment_is_planned_from_the_users_that_came():
    rng = np.random.default_rng(1)
    answers = 1 + rng.poisson(4, 20_000)
    clicks = rng.binomial(answers, rng.beta(1, 9, 20_000))
    nothing = np.zeros(20_000)
    history = Moments.of(np.column_stack([clicks, answers, nothing, nothing]).astype(float))
    half = design.plan(history, 7, 0.5, 0.05)
    tenth = design.plan(history, 7, 0.1, 0.05)
    assert half.minimum_effect == pytest.approx(0.005, rel=0.05)
    assert half.days == pytest.approx(7 * half.users / 20_000, abs=1)
    assert tenth.users == pytest.approx(half.users * 0.25 / 0.09, rel=0.01)
    assert design.plan(history, 7, 0.5, 0.1).users == pytest.approx(half.users / 4, rel=0.01)
    assert design.look_number(0, half.days, half) == design.LOOKS
    assert design.look_number(0, 0.99 * half.days, half) == design.LOOKS - 1


def test_nobody_can_plan_from_hardly_any_clicks():
    answers = np.column_stack([np.zeros(5), np.ones(5), np.zeros(5), np.zeros(5)])
    assert design.plan(Moments.of(answers), 7, 0.5, 0.05) is None
    answers[0, 0] = 1
    assert design.plan(Moments.of(answers), 7, 0.5, 0.05) is None, "one click is none"


def test_it_goes_on_until_something_is_proven():
    early = look(1, 0.2, 0.01)
    verdict = judge(PLAN, [early])
    assert (verdict.outcome, verdict.reason) == ("running", "A benefit is not proven yet.")
    assert verdict.low < 0.01 < verdict.high
    between = judge(PLAN, [early, look(0, 0.3, 0.05)])
    assert (between.outcome, between.reason) == ("running", "It does no proven harm.")


def test_a_benefit_is_called_one_at_a_planned_look():
    verdict = judge(PLAN, [look(1, 0.2, 0.005), look(2, 0.4, 0.02)])
    assert verdict.outcome == "benefit"
    assert verdict.reason.startswith("The challenger is better: +20.0% (")
    assert 0 < verdict.low < 0.02


def test_harm_is_called_one_at_any_look():
    verdict = judge(PLAN, [look(0, 0.1, -0.05)])
    assert verdict.outcome == "harm"
    assert verdict.reason.startswith("The challenger does harm: -50.0% (")


def test_the_verdict_turns_at_the_bounds_of_a_look():
    middle = judge(PLAN, [look(1, 0.2, 0.0)])
    outcomes = {
        1.01 * middle.harm_bound: "harm",
        0.99 * middle.harm_bound: "running",
        0.99 * middle.benefit_bound: "running",
        1.01 * middle.benefit_bound: "benefit",
    }
    assert {at: judge(PLAN, [look(1, 0.2, at)]).outcome for at in outcomes} == outcomes
    between = judge(PLAN, [look(0, 0.2, 0.0)])
    assert (between.harm_bound, between.benefit_bound) == (middle.harm_bound, None)


def test_great_harm_is_seen_at_once_however_much_was_planned():
    plan = PLAN.model_copy(update={"information": 50 * PLAN.information})
    newest = look(0, 0.2, -0.05)
    assert newest.information / plan.information < 0.01
    assert judge(plan, [newest]).outcome == "harm"
    assert judge(plan, [look(0, 0.2, -0.02)]).outcome == "running"


def test_a_guardrail_stops_what_helps_the_kpi():
    hurt = look(0, 0.3, -0.05).kpi
    verdict = judge(PLAN, [look(2, 0.4, 0.02, guardrails={"orders per answer": hurt})])
    assert verdict.outcome == "harm"
    assert "harm in orders per answer" in verdict.reason


def test_the_horizon_is_the_end():
    verdict = judge(PLAN, [look(4, 0.8, 0.002), look(5, 0.95, 0.003)])
    assert verdict.outcome == "undecided"
    assert "so the champion stays" in verdict.reason
    assert verdict.low < 0.003 < verdict.high


def test_all_the_information_before_the_horizon_is_the_end_too():
    assert judge(PLAN, [look(3, 1.02, 0.002)]).outcome == "undecided"


def test_missing_users_come_before_everything():
    unequal = Users(champion=22_000, challenger=18_000)
    verdict = judge(PLAN, [look(2, 0.4, 0.05, assigned=unequal, answered=unequal)])
    assert verdict.outcome == "mismatch"
    assert "45.00% of 40,000 users were assigned to the challenger" in verdict.reason
    verdict = judge(PLAN, [look(2, 0.4, 0.05, answered=unequal)])
    assert verdict.outcome == "mismatch"
    assert "were answered by the challenger" in verdict.reason
    assert "lost to the fallback" in verdict.reason


def test_few_users_prove_nothing():
    verdict = judge(PLAN, [look(1, 0.2, -0.09, assigned=Users(champion=150, challenger=150))])
    assert (verdict.outcome, "200 users" in verdict.reason) == ("running", True)


def test_late_clicks_do_not_undo_a_look():
    verdict = judge(PLAN, [look(1, 0.41, 0.001), look(2, 0.4, 0.002)])
    assert verdict.outcome == "running"


def test_an_arm_that_hardly_anybody_reacts_to_is_not_judged_and_waits_for_two_horizons():
    rare = look(5, 1.0, -0.05).kpi.model_copy(update={"error": 0.2})
    newest = look(0, 1.0, -0.05).model_copy(update={"kpi": rare})
    assert judge(PLAN, [newest]).reason == "Too few users have reacted for a judgement."
    late = judge(PLAN, [newest.model_copy(update={"days": 21})])
    assert late.outcome == "undecided"
    assert late.reason.endswith("That has not come in 21 days, so the champion stays.")


def test_looks_that_were_missed_leave_their_error_rate_to_the_last_one():
    assert judge(PLAN, [look(5, 0.6, 2.6 / 0.6**0.5 / PLAN.information**0.5)]).outcome == "benefit"


@pytest.mark.parametrize(("share", "orders"), [(0.1, 0.002), (0.02, 0.002), (0.5, 0.01)])
def test_equal_challengers_are_not_stopped_for_a_rare_guardrail(share, orders):
    rng = np.random.default_rng(5)
    plan = Design(share=share, minimum_effect=0.01, information=5e4, users=9_000, days=10)
    stopped = 0
    for _ in range(100):
        challenger = rng.random(9_000) < share
        clicks = rng.binomial(4, 0.05, 9_000)
        bought = rng.binomial(4, orders, 9_000)
        for until in range(1_000, 9_001, 1_000):
            gaps = [gap(hits[:until], challenger[:until]) for hits in (clicks, bought)]
            count = int(challenger[:until].sum())
            arms = Users(champion=until - count, challenger=count)
            newest = look(0, 1.0, 0.0, assigned=arms, answered=arms)
            newest = newest.model_copy(update={"kpi": gaps[0], "guardrails": {"orders": gaps[1]}})
            if judge(plan, [newest]).outcome == "harm":
                stopped += 1
                break
    assert stopped <= 4


def gap(hits: np.ndarray, challenger: np.ndarray) -> Gap:
    """The difference between arms of users with four answers each."""
    zero = np.zeros(len(hits))
    numbers = np.column_stack([hits, zero + 4, zero, zero]).astype(float)
    estimate = effect.difference(Moments.of(numbers[~challenger]), Moments.of(numbers[challenger]))
    return Gap(**{name: float(value) for name, value in estimate._asdict().items()})


def of_users(rate: float, count: int, rng: np.random.Generator) -> Moments:
    """Users with four answers each, new ones."""
    clicks = rng.binomial(4, rate, count).astype(float)
    nothing = np.zeros(count)
    return Moments.of(np.column_stack([clicks, nothing + 4, nothing, nothing]))


@pytest.mark.parametrize("rate", [0.05, 0.01, 0.0])
def test_a_release_that_nobody_reacts_to_is_seen_by_a_small_hold_back(rate):
    rng = np.random.default_rng(1)
    history = of_users(0.2, 20_000, rng)
    plan = design.hold_back(history, 14, 0.95)
    estimate = effect.difference(of_users(0.2, 500, rng), of_users(rate, 9_500, rng))
    assert design.is_precise(estimate)
    progress = design.progress(estimate.information, plan)
    assert design.is_harmful(estimate, progress)


def test_a_hold_back_lasts_a_week_however_much_is_known():
    history = of_users(0.2, 20_000, np.random.default_rng(1))
    plan = design.hold_back(history, 14, 0.95)
    assert (plan.days, plan.users, plan.is_hold_back) == (7, 10_000, True)
    numbers = [design.look_number(5 * plan.information, day, plan) for day in (1, 3, 6.9, 7, 9)]
    assert numbers == [0, 2, 4, 5, 5]
    assert not design.is_final(5 * plan.information, 4, plan)
    bounds = design.benefit_bounds([plan.information, 2 * plan.information], [1, 5], plan)
    assert bounds[0] == pytest.approx(4.88, abs=0.01), "a fifth of the time, whatever is known"
    assert bounds[1] == pytest.approx(1.96, abs=0.01)
    small = design.hold_back(of_users(0.2, 400, np.random.default_rng(1)), 14, 0.99)
    assert small.relative_effect > 1, "no fall is large enough to be seen"
    hour = design.hold_back(history, 1 / 24, 0.95)
    assert hour.relative_effect == 0, "an hour does not say how many users a week has"
    assert hour.information == pytest.approx(14 * 24 * plan.information)
