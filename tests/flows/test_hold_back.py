"""After a release a share of the users keeps the version before, and shows whether it was right."""

import html
from pathlib import Path

import pytest
from prefect import flow

from flows.experiment import experiment
from flows.ingest import ingest
from flows.look import act, look
from flows.promote import promote
from flows.publish import publish
from flows.retrain import retrain
from flows.rollback import rollback
from flows.train import train
from kreislauf import registry
from kreislauf.experiment import running
from kreislauf.experiment.look import take
from kreislauf.pages import experiment as experiment_page
from kreislauf.release import lifecycle_page, releases, triton
from kreislauf.release.permission import PublishRefused
from kreislauf.release.releases import NO_MODEL
from serving import split
from tests.conftest import aliases
from tests.flows.test_look import RATE, clock, land, two_promoted
from tests.flows.test_loop import card_of

pytestmark = pytest.mark.usefixtures("prefect_harness", "mlflow_store", "triton")
SHARE = 0.2
__all__ = ["clock"]


def held_back(model: str, orders) -> None:
    """Version 2 has replaced version 1, which a fifth of the users keeps. Clicks of the two weeks
    before are known."""
    first = two_promoted(model, orders)
    assert (first.challenger, first.share, first.is_hold_back) == (NO_MODEL, SHARE, True)
    assert first.versions == [1]
    land(model, None, RATE, 4_000, (-14, 0), release=0)
    publish(model, 2)


@pytest.fixture
def released(prepared, clock, monkeypatch) -> str:
    """See `held_back`."""
    monkeypatch.setenv("KREISLAUF_HOLD_BACK", str(SHARE))
    return prepared(held_back)


@pytest.fixture
def kept(tiny, clock, tmp_path) -> str:
    """The same, but for the registry, which knows of nothing."""
    serve(tiny, tmp_path, 1, 2)
    first = releases.append(tiny, 1, "a test", "a test", None)
    more = {"challenger": 1, "share": SHARE, "is_hold_back": True}
    releases.append(tiny, 2, "a test", "a test", first, **more)
    land(tiny, None, RATE, 4_000, (-14, 0), release=0)
    return tiny


@pytest.fixture
def first_model(tiny, clock, tmp_path) -> str:
    """Version 1 is live, of which the registry knows nothing. Clicks of the two weeks before are
    known."""
    serve(tiny, tmp_path, 1)
    releases.append(tiny, 1, "a test", "a test", None)
    land(tiny, None, RATE, 4_000, (-14, 0), release=0)
    return tiny


def serve(model: str, folder: Path, *versions: int) -> None:
    """Let Triton serve these versions."""
    from models.tiny import write

    for version in versions:
        onnx = write(folder / f"{version}.onnx", 100.0 * version)
        triton.add_version(model, version, onnx)
    triton.serve(model, list(versions))


def both(model: str, rate: float, days: tuple[float, float], **changes) -> None:
    """Users of the release, whose answers are clicked with this rate, and of the version before."""
    number = releases.current(model).number
    land(model, "champion", rate, 1_600, days, release=number, versions=(2, 1), **changes)
    land(model, "challenger", RATE, 400, days, release=number, versions=(2, 1), orders=0.1)


def test_a_share_of_the_users_keeps_the_version_before(released):
    live = releases.current(released)
    assert (live.champion, live.challenger, live.previous) == (2, 1, 1)
    assert (live.share, live.is_hold_back, live.tested_version) == (SHARE, True, None)
    assert live.reason.endswith("20.0% of the users get version 1 for 7 days.")
    assert all(triton.is_resident(released, version) for version in (1, 2))
    versions = [split.assign(live, str(user)).version for user in range(2_000)]
    assert versions.count(1) == pytest.approx(400, abs=60)
    assert aliases(released) == {"champion": 2, "previous": 1}
    assert "20.0%, held back" in html.unescape(lifecycle_page.read(released).decode())


@pytest.mark.parametrize("guardrail", [False, True])
def test_a_release_that_does_harm_is_rolled_back_at_the_next_look(released, guardrail):
    if guardrail:
        both(released, RATE, (0, 0.5), orders=0.02)
    else:
        both(released, 0.1, (0, 0.5), orders=0.1)

    (newest,) = look(maturity_minutes=0)

    assert newest.verdict.outcome == "harm"
    live = releases.current(released)
    assert (live.champion, live.challenger, live.share) == (1, None, 0)
    assert live.who == "the flow look"
    judged = "harm in orders per answer" if guardrail else "harm"
    begin = f"Compared with the users who kept version 1: The release does {judged}: -"
    assert live.reason.startswith(begin)
    assert live.hold.startswith("version 2 was rolled back: Compared with")
    assert look(maturity_minutes=0) == [], "nobody keeps anything after a rollback"
    page = html.unescape(lifecycle_page.read(released).decode())
    assert "its users have shown that it does harm" not in page
    card = html.unescape(card_of(released, 2))
    assert f"<h2>Hold-back against version 1</h2>\n<p>The release does {judged}: -" in card
    with pytest.raises(PublishRefused, match="version 2 was live before and was replaced"):
        publish(released)
    retraining = retrain(released, cooldown_days=0)
    assert (retraining.outcome, "was replaced" in retraining.reason) == ("refuse", True)


def test_the_next_training_starts_from_what_came_back_and_is_judged_against_it(released, orders):
    both(released, 0.1, (0, 0.5), orders=0.1)
    look(maturity_minutes=0)
    ingest(orders(60, 90, threshold=120), released)
    version = train(released)
    assert (version.number, version.lineage.parent) == (3, 1)
    assert promote(released, 3).champion_version == 1
    with pytest.raises(PublishRefused, match="on hold: version 2 was rolled back"):
        publish(released, 3)


def test_it_ends_after_a_week_without_a_difference(kept):
    both(kept, RATE, (0, 3), orders=0.1)
    (early,) = look(maturity_minutes=0)
    assert early.verdict.outcome == "running"
    plan = running.current(kept).terms.plan
    assert (plan.days, plan.share) == (7, 1 - SHARE)
    users_of_two_weeks = 4_000 * 11 / 14 + 2_000
    assert plan.users == pytest.approx(users_of_two_weeks / 2, rel=0.02)
    test = running.current(kept)
    page = experiment_page.page(test, early)
    assert "version 2 against version 1" in page
    assert "must not cost clicks and orders, compared with version 1, which 20.0%" in page
    assert " fewer clicks per answer are probably seen." in page
    assert "| version 1 | challenger | 400 | 20.00% | 20.00% | 400 |" in page
    bound = early.verdict.harm_bound / early.look.kpi.champion_rate
    assert f"| {bound:+.1%} | " in page.split("harm below")[1]
    both(kept, RATE, (3, 7.1), orders=0.1)
    (last,) = look(maturity_minutes=0)
    assert last.verdict.outcome == "undecided"
    live = releases.current(kept)
    assert (live.champion, live.challenger, live.hold) == (2, None, "")
    assert live.reason.startswith("The hold-back of version 1 ends. No difference is proven")
    assert "so the release stays" in live.reason


def test_a_release_that_is_surely_better_goes_to_all_before_the_week_is_over(kept):
    both(kept, 0.3, (0, 2), orders=0.1)
    (newest,) = look(maturity_minutes=0)
    assert newest.verdict.outcome == "benefit"
    assert "The hold-back of version 1 ends. The release is better: +" in (
        releases.current(kept).reason
    )


def test_lost_users_end_it_and_nothing_is_rolled_back(kept):
    number = releases.current(kept).number
    land(kept, "champion", 0.1, 1_600, (0, 1), release=number, versions=(2, 1))
    land(kept, "challenger", RATE, 200, (0, 1), release=number, versions=(2, 1))
    (newest,) = look(maturity_minutes=0)
    assert newest.verdict.outcome == "mismatch"
    assert "users were assigned to the release, and 80.00% were planned" in newest.verdict.reason
    assert releases.current(kept).champion == 2


def test_it_ends_at_last_when_feedback_stops(kept, monkeypatch):
    monkeypatch.setattr("kreislauf.experiment.look.MOST_HOLD_BACK_DAYS", 7)
    both(kept, RATE, (0, 1), orders=0.1)
    assert look(maturity_minutes=0)[0].verdict.outcome == "running"
    number = releases.current(kept).number
    land(kept, "champion", 0.0, 500, (3, 6), release=number, versions=(2, 1))
    assert look(maturity_minutes=0)[0].verdict.outcome == "running"
    land(kept, "champion", 0.0, 500, (7, 9), release=number, versions=(2, 1))
    assert "Feedback has stopped" in look(maturity_minutes=0)[0].verdict.reason
    assert releases.current(kept).challenger is None


def test_it_ends_at_last_when_nobody_reacts(tiny, clock, tmp_path, monkeypatch):
    monkeypatch.setattr("kreislauf.experiment.look.MOST_HOLD_BACK_DAYS", 7)
    serve(tiny, tmp_path, 1)
    releases.append(tiny, 1, "a test", "a test", None)
    experiment(tiny, NO_MODEL, share=0.5)
    for days, outcome in (((0, 3), "running"), ((3, 9), "undecided")):
        for arm in ("champion", "challenger"):
            land(tiny, arm, 0.0, 300, days, release=2, versions=(1, NO_MODEL))
        assert look(maturity_minutes=0)[0].verdict.outcome == outcome
    reason = releases.current(tiny).reason
    assert reason.endswith("Too few users have reacted for a judgement.")


def test_a_version_before_that_was_deleted_cannot_come_back(released, caplog):
    registry.delete(registry.get(released, 1))
    both(released, 0.1, (0, 0.5), orders=0.1)
    look(maturity_minutes=0)
    (warning,) = [line for line in caplog.records if "was not rolled back" in line.message]
    assert warning.levelname == "WARNING"
    page = html.unescape(lifecycle_page.read(released).decode())
    assert "something waits for a person" in page
    assert "Version 2 is live, and its users have shown that it does harm: " in page
    live = releases.current(released)
    assert (live.champion, live.challenger) == (2, None)
    assert live.reason.endswith("It was not rolled back: version 1 was deleted.")


def test_a_rollback_by_somebody_else_is_not_undone(released):
    both(released, 0.1, (0, 0.5), orders=0.1)
    test = running.current(released)
    newest = take(test, maturity=0)
    assert newest.verdict.outcome == "harm"
    assert rollback(released, live_version=2).champion == 1
    assert not flow(act)(test, newest, "automatic")
    with pytest.raises(releases.ReleaseConflict, match="version 2 is not live any more, but vers"):
        rollback(released, version=2, live_version=2)
    assert [entry.champion for entry in releases.history(released)] == [1, 2, 1]
    assert look(maturity_minutes=0) == [], "nobody keeps anything"


def test_a_release_that_nobody_clicks_is_rolled_back(released):
    both(released, 0.0, (0, 0.5), orders=0.1)
    assert look(maturity_minutes=0)[0].verdict.outcome == "harm"
    assert releases.current(released).champion == 1


def test_feedback_that_stopped_before_ends_it_at_last(kept, monkeypatch):
    number = releases.current(kept).number
    land(kept, "champion", 0.0, 300, (1, 4), release=number, versions=(2, 1))
    assert look(maturity_minutes=0) == []
    monkeypatch.setattr("kreislauf.experiment.look.MOST_HOLD_BACK_DAYS", 3)
    (newest,) = look(maturity_minutes=0)
    assert newest.verdict.outcome == "undecided"
    assert releases.current(kept).reason.endswith("so nothing could be judged.")


def test_an_a_b_test_ends_it(released):
    held_back = releases.current(released)
    tested = experiment(released, 1, share=SHARE)
    assert tested.reason.endswith("The hold-back of version 1 ends.")
    assert (tested.is_hold_back, tested.salt != held_back.salt) == (False, True)
    assert running.current(released).number == tested.number, "users are split anew"
    assert experiment(released).challenger is None


def test_a_retraining_does_not_wait_for_it(kept):
    both(kept, RATE, (0, 1), orders=0.1)
    look(maturity_minutes=0)
    assert running.current(kept).terms.plan
    assert running.reason_to_wait(kept) == ""


def test_a_first_model_proves_itself_beside_none(first_model):
    tiny = first_model
    with pytest.raises(ValueError, match="nothing would be compared"):
        experiment(tiny, NO_MODEL, share=1)
    control = experiment(tiny, NO_MODEL, share=SHARE, kpi="click")
    assert control.reason.startswith("20.0% of the users get no model for 7 days, but the answer")
    assert control.versions == [1]
    land(tiny, "challenger", RATE, 400, (0, 2), release=2, versions=(1, NO_MODEL), orders=0.1)
    # The fallback of the model loses no users: without a model there is none.
    model = {"release": 2, "versions": (1, NO_MODEL), "orders": 0.1, "fallback": 0.3}
    land(tiny, "champion", 0.3, 1_600, (0, 2), **model)
    test = running.current(tiny)
    (newest,) = look(maturity_minutes=0)
    assert newest.verdict.outcome == "benefit"
    page = experiment_page.page(test, newest)
    assert "version 1 against no model" in page
    assert "| no model | challenger | 400 | 20.00% |" in page
    assert "users with 10 answers before or more" in page
    live = releases.current(tiny)
    assert (live.champion, live.challenger) == (1, None)
    assert live.reason.startswith("The comparison of version 1 with no model ends. The release is")


def test_a_model_that_is_worse_than_none_stays_and_it_is_said(first_model):
    tiny = first_model
    experiment(tiny, NO_MODEL, share=0.5)
    land(tiny, "champion", 0.1, 1_600, (0, 2), release=2, versions=(1, NO_MODEL), orders=0.1)
    land(tiny, "challenger", RATE, 1_600, (0, 2), release=2, versions=(1, NO_MODEL), orders=0.1)
    assert look(maturity_minutes=0)[0].verdict.outcome == "harm"
    live = releases.current(tiny)
    assert (live.champion, live.challenger, live.hold) == (1, None, "")
    assert live.reason.endswith(
        "It was compared with no model, and not with another version, so it stays."
    )
