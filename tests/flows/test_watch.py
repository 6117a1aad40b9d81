"""A release that is clicked less is rolled back, once, and nothing else is."""

import msgspec
import numpy as np
import pytest

from flows.rollback import rollback
from flows.watch import replaced_version, watch
from kreislauf import exposures, lake, registry
from kreislauf.clock import DAY_MS
from kreislauf.exposures import Exposure, Feedback
from kreislauf.release import releases
from kreislauf.release.permission import PublishRefused
from tests.flows.test_loop import two_releases
from tests.kreislauf.lake.test_lake import T0, File

pytestmark = pytest.mark.usefixtures("prefect_harness", "mlflow_store")
WEEK = (0.0, 7.0)
DAY = (7.0, 8.0)


def land(
    version: int,
    days: tuple[float, float],
    rate: float,
    model: str = "tiny",
    variant: str = "champion",
    answers: int = 2_000,
    feedback_until: float = 99.0,
) -> None:
    """Answers of a version to users with four each, evenly over the days from T0, of which `rate`
    are clicked."""
    rng = np.random.default_rng([version, int(days[0]), len(variant)])
    times = np.linspace(T0 + days[0] * DAY_MS, T0 + days[1] * DAY_MS, answers, endpoint=False)
    shown = []
    taken = []
    for number, ts in enumerate(times.astype(int).tolist()):
        about = (f"{model}-{version}-{days[0]}-{variant}-{number}", ts, model, version, variant)
        user = f"{version}-{days[0]}-{number // 4}"
        shown.append(msgspec.json.encode(Exposure(*about, user, "[1]", 1.0)))
        if rng.random() < rate and ts < T0 + feedback_until * DAY_MS:
            taken.append(msgspec.json.encode(Feedback(*about, "click", "1")))
    lake.load_file(exposures.EXPOSURES, File(f"e-{version}-{days}-{variant}-{model}", shown))
    if taken:
        lake.load_file(exposures.FEEDBACK, File(f"f-{version}-{days}-{variant}-{model}", taken))


def release(model: str, *champions: int) -> None:
    """A release log with these champions."""
    for number in champions:
        releases.append(model, number, "a test", "a test", releases.current(model))


def watched(model: str, maturity_minutes: float = 0):
    """What is said of the live release; the release log stays as it is."""
    before = releases.history(model)
    (comparison,) = watch(maturity_minutes)
    assert releases.history(model) == before
    assert not comparison.rolled_back
    return comparison


@pytest.mark.usefixtures("triton")
def test_a_worse_release_is_rolled_back_once(prepared, tiny, orders, monkeypatch):
    prepared(two_releases)
    land(1, WEEK, 0.2)
    land(2, DAY, 0.1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kreislauf.release.golden.compare", lambda *_: "everything")
        with pytest.raises(PublishRefused, match="everything"):
            watch(0)
    assert releases.current(tiny).champion == 2, "what is live stays"

    (comparison,) = watch(0)

    assert (comparison.worse, comparison.rolled_back) == (True, True)
    live = releases.current(tiny)
    assert (live.champion, live.previous, live.who) == (1, 2, "the flow watch")
    assert live.reason.startswith("Clicks per answer have clearly fallen with the release: 0.1")
    assert "of version 2 (2000 answers), 0.19" in live.reason
    assert live.hold.startswith("version 2 was rolled back: Clicks per answer have clearly fallen")

    land(1, (8.0, 9.0), 0.02)
    assert watch(0) == [], "a version that came back stays"
    assert rollback(tiny, reason="It was a campaign.", who="Ada").champion == 2
    land(2, (9.0, 10.0), 0.02)
    assert watch(0) == [], "what a person brought back stays, too"
    assert len(releases.history(tiny)) == 4


@pytest.mark.parametrize("rate", [0.2, 0.19, 0.3], ids=["equal", "a little less", "better"])
def test_a_release_that_is_not_clearly_worse_stays(tiny, rate: float):
    release(tiny, 1, 2)
    land(1, WEEK, 0.2)
    land(2, DAY, rate)
    assert "have not clearly fallen with the release" in watched(tiny).reason


def test_feedback_that_stopped_is_named_and_nothing_is_done(tiny):
    release(tiny, 1, 2)
    land(1, WEEK, 0.2)
    land(2, DAY, 0.2, feedback_until=7.2)
    comparison = watched(tiny)
    assert not comparison.worse
    assert comparison.reason.startswith("Feedback has stopped: there was none on the 1")
    assert "Does the shop still send feedback" in comparison.reason


def test_a_long_break_between_the_few_clicks_on_a_bad_release_is_not_silence(tiny):
    release(tiny, 1, 2)
    land(1, WEEK, 0.2)
    land(2, DAY, 0.03, feedback_until=7.9)
    assert watched(tiny).worse


def test_clicks_on_another_model_do_not_hide_that_feedback_stopped(tiny):
    release(tiny, 1, 2)
    land(1, WEEK, 0.2)
    land(2, DAY, 0.2, feedback_until=7.0)
    land(2, DAY, 0.2, model="session_recommender")
    assert watched(tiny).reason.startswith("Feedback has stopped")


def test_the_challenger_of_an_a_b_test_and_fallbacks_do_not_count(tiny):
    release(tiny, 1, 2)
    releases.append(tiny, 2, "a test", "a test", releases.current(tiny), challenger=3, share=0.5)
    land(1, WEEK, 0.2)
    land(2, DAY, 0.2)
    land(3, DAY, 0.0, variant="challenger")
    land(2, DAY, 0.0, variant="fallback")
    assert "have not clearly fallen" in watched(tiny).reason


def test_what_falls_later_is_not_the_release(tiny):
    release(tiny, 1, 2)
    land(1, WEEK, 0.2)
    land(2, DAY, 0.2)
    land(2, (8.0, 10.0), 0.05, answers=6_000)
    comparison = watched(tiny)
    assert "have fallen, but not from the first answers on: 0.09" in comparison.reason


def test_a_previous_version_that_was_deleted_is_named(tiny):
    release(tiny, 1, 2)
    land(1, WEEK, 0.2)
    land(2, DAY, 0.1)
    assert registry.lookup(tiny, 1) is None
    comparison = watched(tiny)
    assert comparison.worse
    assert comparison.reason.endswith(
        "It was not rolled back: version 1 was deleted. The flow rollback goes to an older one."
    )


def test_another_release_that_came_meanwhile_is_not_rolled_back(tiny, monkeypatch):
    release(tiny, 1, 2)
    land(1, WEEK, 0.2)
    land(2, DAY, 0.1)
    history = releases.history(tiny)
    release(tiny, 3)
    monkeypatch.setattr(releases, "history", lambda model: {tiny: history}.get(model, []))
    (comparison,) = watch(0)
    assert comparison.reason.endswith("another release came meanwhile.")
    assert releases.current(tiny).champion == 3


def test_young_and_few_answers_are_not_judged(tiny):
    release(tiny, 1, 2)
    assert watched(tiny).reason == "The lake has no answers of the gateway, or no feedback."
    land(1, WEEK, 0.2)
    assert "Version 2 has no answers yet" in watched(tiny).reason
    land(2, DAY, 0.0, answers=1_200)
    assert "Feedback has stopped" in watched(tiny).reason
    assert watched(tiny, 6 * 60).reason == (
        "Version 2 has 900 answers to 225 users to compare, and at least 1000 to 100 are needed."
    )
    land(2, (16.0, 16.1), 0.0)
    assert watched(tiny).reason == "Version 2 has been live for more than 7 days."


def test_only_a_release_that_replaced_another_version_is_watched(tiny):
    assert watch(0) == []
    release(tiny, 1)
    assert watch(0) == []
    release(tiny, 1, 2, 2)
    assert replaced_version(releases.history(tiny)) == 1
    release(tiny, 1)
    assert replaced_version(releases.history(tiny)) is None
    release(tiny, 3)
    assert replaced_version(releases.history(tiny)) == 1
