"""An A/B test ends with the verdict that its users give, and the verdict acts."""

import html
import time
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest

from flows.approve import approve
from flows.experiment import end_test, experiment
from flows.ingest import ingest
from flows.look import look
from flows.promote import promote
from flows.publish import publish
from flows.retrain import retrain
from flows.train import train
from kreislauf import exposures, lake, registry
from kreislauf.clock import DAY_MS
from kreislauf.evaluation.decision import Decision
from kreislauf.experiment import record, running, users
from kreislauf.exposures import ARMS, Exposure, Feedback
from kreislauf.release import lifecycle_page, releases
from tasks.promote import describe
from tests.flows.test_loop import card_of, two_releases
from tests.kreislauf.lake.test_lake import File

pytestmark = pytest.mark.usefixtures("prefect_harness", "mlflow_store", "triton")
BEGIN = int(time.time() * 1000) - 10 * DAY_MS
"""When tests begin: what lies in the future is not believed."""
RATE = 0.2
"""Clicks per answer of the champion."""


def land(
    model: str,
    arm: str | None,
    rate: float,
    count: int,
    days: tuple[float, float],
    release: int = 1,
    fallback: float = 0.0,
    names: str = "",
    orders: float = 0.0,
    answers: int = 4,
    versions: tuple[int, int] = (1, 2),
) -> None:
    """Answers to `count` users, evenly over these days, counted from the beginning.

    A share `rate` of them is clicked, and a share `orders` leads to orders. A share `fallback` of
    the users gets the fallback. `versions` are those of champion and challenger.
    """
    rng = np.random.default_rng([count, int(1_000 * rate), int(10 * days[0]) + 1_000])
    begins = np.linspace(BEGIN + days[0] * DAY_MS, BEGIN + days[1] * DAY_MS, count, endpoint=False)
    name = names or f"{arm}-{days}-{release}-{fallback}"
    shown = []
    taken = []
    version = versions[arm == "challenger"]
    for number, begin in enumerate(begins.astype(int).tolist()):
        variant = arm or "champion"
        if rng.random() < fallback:
            variant = "fallback"
        for answer in range(answers):
            about = (f"{name}-{number}-{answer}-{release}", begin + answer, model, version, variant)
            user = f"{name}-{number}" if name != "nobody" else ""
            shown.append(Exposure(*about, user, "[1]", 1.0, release, arm))
            if rng.random() < rate:
                taken.append(Feedback(*about, "click", "1"))
            if rng.random() < orders:
                taken.append(Feedback(*about, "order", "1"))
    for table, lines in ((exposures.EXPOSURES, shown), (exposures.FEEDBACK, taken)):
        if lines:
            encoded = [msgspec.json.encode(line) for line in lines]
            lake.load_file(table, File(f"{table.name}-{name}-{release}-{days}-{rate}", encoded))


@pytest.fixture
def clock(monkeypatch) -> None:
    """Releases are written when tests begin."""
    at = SimpleNamespace(time=lambda: BEGIN / 1000)
    monkeypatch.setattr("kreislauf.release.releases.time", at)


def two_promoted(model: str, orders) -> releases.Release:
    """The release of version 1, beside which the gate has promoted version 2."""
    ingest(orders(0, 20, threshold=50), model)
    train(model)
    promote(model, 1)
    first = publish(model, 1)
    ingest(orders(20, 60, threshold=120), model)
    train(model)
    assert promote(model, 2).outcome == "promote"
    return first


def in_test_after_a_week(model: str, orders) -> None:
    """Version 1 is live, and half of the users get version 2, which the gate has promoted. Clicks
    of the week before are known."""
    two_promoted(model, orders)
    land(model, None, RATE, 4_000, (-7, 0), release=0)
    experiment(model, 2, share=0.5, minimum_effect=0.2)


@pytest.fixture
def tested(prepared, clock) -> str:
    """See `in_test_after_a_week`."""
    return prepared(in_test_after_a_week)


def both(model: str, rate: float, days: tuple[float, float] = (0, 3), **changes) -> None:
    """A thousand users of each arm, of whom the challenger's click with this rate."""
    land(model, "champion", RATE, 1_000, days, release=2)
    land(model, "challenger", rate, 1_000, days, release=2, **changes)


def test_a_benefit_goes_live(tested):
    terms = running.current(tested).terms
    assert terms.plan.minimum_effect == pytest.approx(0.04, rel=0.05)
    assert (terms.plan.days, 700 < terms.plan.users < 1_500) == (2, True)
    assert look() == [], "nobody was shown anything yet"
    both(tested, 0.3)

    (newest,) = look(maturity_minutes=0)

    assert newest.verdict.outcome == "benefit"
    live = releases.current(tested)
    assert (live.champion, live.challenger, live.who) == (2, None, "the flow look")
    assert live.reason.startswith("In its A/B test: The challenger is better: +")
    assert "The gate had said: " in live.reason
    assert look(maturity_minutes=0) == [], "no test runs any more"
    assert record.newest(tested)[2] == newest
    card = html.unescape(card_of(tested, 2))
    result = f"{newest.verdict.reason} {newest.look.assigned.all:,} users took part until "
    assert f"<h2>A/B test against version 1</h2>\n<p>{result}" in card
    judged_again = Decision.model_validate_json(registry.get(tested, 2).decision)
    describe.fn(tested, 2, judged_again.model_copy(update={"reasons": ["Once more."]}))
    card = html.unescape(card_of(tested, 2))
    assert "Once more." in card
    assert newest.verdict.reason in card
    page = lifecycle_page.read(tested).decode()
    assert newest.verdict.reason in html.unescape(page)
    assert page.count('class="bound benefit"') == page.count('class="bound harm"') == 2
    bound = newest.verdict.benefit_bound / newest.look.kpi.champion_rate
    assert f"The bound of benefit is {bound:+.1%}." in html.unescape(page)


def test_harm_is_stopped_and_does_not_come_back(tested):
    both(tested, 0.1, days=(0, 0.2))
    (newest,) = look(maturity_minutes=0)
    assert newest.verdict.outcome == "harm"
    live = releases.current(tested)
    assert (live.champion, live.challenger, live.share) == (1, None, 0)
    assert live.reason.startswith("The A/B test of version 2 ends. The challenger does harm: -")
    assert registry.get(tested, 2).was_declined
    assert publish(tested).champion == 1, "the newest promoted one that may go live"


def test_a_card_that_mlflow_does_not_take_delays_no_verdict(tested, monkeypatch, caplog):
    def refuse(*_):
        raise ConnectionError("The artifact store is away.")

    monkeypatch.setattr("kreislauf.registry.artifacts.attach", refuse)
    both(tested, 0.1, days=(0, 0.2))
    (newest,) = look(maturity_minutes=0)
    assert newest.verdict.outcome == "harm"
    assert releases.current(tested).challenger is None
    assert "version 2 does not say what came of its test. The artifact store is away." in (
        caplog.text
    )


def test_a_guardrail_stops_a_challenger_that_is_clicked_more(tested):
    land(tested, "champion", RATE, 1_000, (0, 0.3), release=2, orders=0.1)
    land(tested, "challenger", 0.3, 1_000, (0, 0.3), release=2, orders=0.02)
    (newest,) = look(maturity_minutes=0)
    assert newest.verdict.outcome == "harm"
    assert "harm in orders per answer" in newest.verdict.reason
    assert releases.current(tested).challenger is None


def test_lost_users_stop_it_and_the_stage_is_named(tested):
    land(tested, "champion", RATE, 3_000, (0, 1), release=2)
    land(tested, "challenger", RATE, 2_400, (0, 1), release=2)
    (newest,) = look(maturity_minutes=0)
    assert newest.verdict.outcome == "mismatch"
    assert "44.44% of 5,400 users were assigned to the challenger" in newest.verdict.reason
    assert "between the gateway and the lake" in newest.verdict.reason
    assert releases.current(tested).challenger is None
    assert not registry.get(tested, 2).was_declined, "it did no harm"


def test_a_slow_challenger_cannot_hide_behind_the_fallback(tested):
    land(tested, "champion", RATE, 3_000, (0, 1), release=2)
    land(tested, "challenger", RATE, 3_000, (0, 1), release=2, fallback=0.2)
    (newest,) = look(maturity_minutes=0)
    assert newest.counts.assigned == {"champion": 3_000, "challenger": 3_000}
    assert "were answered by the challenger" in newest.verdict.reason
    assert newest.verdict.outcome == "mismatch"


def test_it_ends_at_its_horizon_without_a_difference(tested):
    land(tested, "champion", RATE, 300, (0, 1.9), release=2)
    land(tested, "challenger", RATE, 300, (0, 1.9), release=2)
    (early,) = look(maturity_minutes=0)
    assert early.verdict.outcome == "running"
    assert look(maturity_minutes=0) == [early], "nothing has arrived since"
    land(tested, "champion", RATE, 300, (1.9, 2.3), release=2)
    land(tested, "challenger", RATE, 300, (1.9, 2.3), release=2)
    (last,) = look(maturity_minutes=0)
    assert last.verdict.outcome == "undecided"
    live = releases.current(tested)
    assert (live.champion, live.challenger) == (1, None)
    assert "No difference is proven at the horizon, so the champion stays" in live.reason


@pytest.mark.parametrize("go_live", [True, False])
def test_a_person_is_asked_once_if_that_was_wished(tested, go_live):
    both(tested, 0.3)
    for last_day in (3, 5):
        (newest,) = look(maturity_minutes=0, approval="manual")
        assert newest.verdict.outcome == "benefit", "also when the horizon has passed"
        assert releases.current(tested).challenger == 2, "it goes on until somebody answers"
        both(tested, RATE, days=(last_day, last_day + 1))
    assert "In its A/B test: The challenger is better" in registry.get(tested, 2).question
    approve("Ada", 2, go_live=go_live, model=tested)
    if not go_live:
        look(maturity_minutes=0, approval="manual")
    live = releases.current(tested)
    assert (live.champion, live.challenger) == (2 if go_live else 1, None)


def test_what_does_not_count_is_counted(tested):
    both(tested, RATE, days=(0, 0.5))
    land(tested, "champion", RATE, 50, (0, 0.5), release=2, names="nobody")
    land(tested, "champion", RATE, 7, (0, 0.5), release=2, names="moved")
    land(tested, "challenger", RATE, 7, (0.5, 0.6), release=2, names="moved")
    land(tested, "champion", 1.0, 2, (0, 0.1), release=2, names="bot", answers=501)
    land(tested, "challenger", RATE, 90, (0.7, 0.8), release=2, names="young")
    land(tested, "champion", RATE, 40, (0, 0.5), release=1, names="of another release")
    observation = users.observe(running.current(tested), int(BEGIN + 0.65 * DAY_MS))
    assert observation.counts.model_dump() == {
        "assigned": {"champion": 1_002, "challenger": 1_000},
        "answered": {"champion": 1_002, "challenger": 1_000},
        "answers": 8_000,
        "anonymous_answers": 200,
        "users_in_both": 7,
        "busy_users": 2,
    }
    for arm in ARMS:
        clicks, answers, clicks_before, answers_before = observation.arms[arm]["click"].sums
        assert answers == 4_000
        assert clicks == pytest.approx(RATE * answers, rel=0.1)
        assert (clicks_before, answers_before) == (0, 0), "they are new"


def test_a_changed_share_begins_anew_and_knows_the_users_from_before_the_test(tested):
    land(tested, "champion", RATE, 500, (-5, -4), release=0, names="regular")
    land(tested, "champion", RATE, 500, (0, 1), release=2, names="regular")
    grown = experiment(tested, 2, share=0.8, minimum_effect=0.3)
    test = running.current(tested)
    assert (test.number, test.first.number, test.terms.minimum_effect) == (grown.number, 2, 0.3)
    land(tested, "challenger", RATE, 500, (1, 2), release=grown.number, names="regular")
    observation = users.observe(test, BEGIN + 3 * DAY_MS)
    assert observation.counts.assigned == {"champion": 0, "challenger": 500}
    assert observation.begin == BEGIN + DAY_MS
    assert observation.arms["challenger"]["click"].sums[1] == 2_000
    assert observation.arms["challenger"]["click"].sums[3] == 2_000, "what was before the test"
    again = experiment(tested, 2, share=0.8, minimum_effect=0.1)
    assert running.current(tested).number == grown.number < again.number
    assert running.current(tested).terms.minimum_effect == 0.3, "what was agreed on stays"


def two_old_releases(model: str, orders) -> None:
    """Two releases, when tests begin."""
    two_releases(model, orders)


def test_without_any_clicks_nobody_can_say_how_long_it_takes(tiny, prepared, clock):
    prepared(two_old_releases)
    experiment(tiny, 1, share=0.5)
    number = releases.current(tiny).number
    for arm in ARMS:
        land(tiny, arm, 0.0, 400, (0, 1), release=number)
    (newest,) = look(maturity_minutes=0)
    assert newest.verdict.outcome == "running"
    assert newest.verdict.reason.startswith("Nobody can say yet how long it takes")
    assert running.current(tiny).terms.plan is None


def test_what_cannot_be_judged_is_refused(tiny):
    with pytest.raises(ValueError, match="minimum_effect is 0"):
        experiment(tiny, 2, minimum_effect=0)


def test_a_guardrail_counts_once_and_is_not_the_kpi():
    terms = running.Terms(kpi="order", guardrails=("order", "click", "click"))
    assert terms.kinds == ("order", "click")


def test_one_arm_may_come_first_and_orders_later(tested):
    land(tested, "champion", RATE, 5, (0, 0.1), release=2)
    assert look(maturity_minutes=0)[0].verdict.outcome == "running"
    land(tested, "champion", RATE, 995, (0.1, 0.4), release=2)
    land(tested, "challenger", 0.1, 1_000, (0, 0.4), release=2, orders=0.002)
    assert look(maturity_minutes=0)[0].verdict.outcome == "harm"


def test_harm_is_seen_while_a_benefit_waits_for_a_person(tested):
    both(tested, 0.3, days=(0, 1))
    first = look(maturity_minutes=0, approval="manual")[0].verdict
    assert first.outcome == "benefit"
    both(tested, 0.3, days=(1, 2))
    waiting = look(maturity_minutes=0, approval="manual")[0].verdict
    assert waiting.reason == first.reason
    assert first.harm_bound < waiting.harm_bound < 0, "that of the newest look"
    for day in (2, 3, 4, 5):
        both(tested, 0.02, days=(day, day + 1))
    assert look(maturity_minutes=0, approval="manual")[0].verdict.outcome == "harm"
    assert releases.current(tested).challenger is None
    assert not registry.get(tested, 2).question


def test_a_question_goes_with_its_test(tested):
    both(tested, 0.3)
    look(maturity_minutes=0, approval="manual")
    assert registry.get(tested, 2).question
    experiment(tested)
    assert not registry.get(tested, 2).question


def test_a_winner_that_was_deleted_ends_its_test(tested):
    both(tested, 0.3)
    registry.delete(registry.get(tested, 2))
    look(maturity_minutes=0)
    live = releases.current(tested)
    assert (live.champion, live.challenger) == (1, None)
    assert live.reason.endswith("It was deleted in MLflow.")


def test_what_a_person_starts_meanwhile_is_not_ended(tested):
    test = running.current(tested)
    again = experiment(tested, 2, share=0.3)
    assert not end_test(test.release, "too late", "the flow look")
    assert releases.current(tested) == again


def test_feedback_that_stops_is_said(tested):
    for arm in ARMS:
        land(tested, arm, RATE, 250, (0, 0.3), release=2)
    look(maturity_minutes=0)
    land(tested, "champion", 0.0, 300, (0.5, 3), release=2)
    (newest,) = look(maturity_minutes=0)
    assert newest.verdict.outcome == "running"
    assert newest.verdict.reason.startswith("Feedback has stopped: there is none since ")


def test_a_retraining_waits_for_the_verdict_but_not_for_years(tested, monkeypatch):
    monkeypatch.setattr("kreislauf.experiment.running.time", SimpleNamespace(time=lambda: 0))
    assert "has a verdict by" in running.reason_to_wait(tested)
    registry.close(registry.get(tested, 2))
    retraining = retrain(tested, cooldown_days=0)
    assert (retraining.outcome, "A/B test" in retraining.reason) == ("waiting", True)
    test = running.current(tested)
    running.write_plan(test, test.terms.plan.model_copy(update={"days": 4_000_000}))
    assert "has a verdict by" in running.reason_to_wait(tested)
    after = SimpleNamespace(time=lambda: BEGIN / 1000 + 44 * 86_400)
    monkeypatch.setattr("kreislauf.experiment.running.time", after)
    assert running.reason_to_wait(tested) == ""


@pytest.mark.parametrize("rate", [RATE, 0.3])
def test_a_self_test_ends_with_what_it_says_and_changes_nothing(tested, rate):
    with pytest.raises(ValueError, match=r"share is 1\.0: nothing would be compared"):
        experiment(tested, 1, share=1)
    release = experiment(tested, 1, share=0.5, minimum_effect=0.2)
    assert (release.is_self_test, release.tested_version, release.versions) == (True, None, [1])
    assert release.reason.startswith("Self-test: two arms get version 1, one has 50.0% of the")
    assert release.reason.endswith("The A/B test of version 2 against version 1 ends.")
    assert running.reason_to_wait(tested) == ""
    for arm, clicks in (("champion", RATE), ("challenger", rate)):
        land(tested, arm, clicks, 1_000, (0, 3), release=release.number, versions=(1, 1))
    (newest,) = look(maturity_minutes=0)
    live = releases.current(tested)
    assert (live.champion, live.challenger, live.hold) == (1, None, "")
    assert live.reason.startswith(f"The self-test of version 1 ends. {newest.verdict.reason}")
    is_error = "Both arms got the same version. So this is chance" in live.reason
    assert (newest.verdict.outcome, is_error) == {
        RATE: ("undecided", False),
        0.3: ("benefit", True),
    }[rate]
    assert not registry.get(tested, 1).was_declined
