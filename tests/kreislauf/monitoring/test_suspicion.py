"""What the newest tails say, and what follows from it."""

import numpy as np
import polars as pl
import pytest

from kreislauf.clock import DAY_MS, HOUR_MS
from kreislauf.evaluation.intervals import Interval
from kreislauf.lake.exclusions import HumanVerdict
from kreislauf.monitoring import cadence, doubts, limits, policy, suspicion
from kreislauf.monitoring.agreement import Agreement, first_excluded
from kreislauf.monitoring.diagnosis import UNEXPLAINED, diagnose, judge
from kreislauf.monitoring.finding import Finding
from kreislauf.monitoring.limits import Measured, Signal
from kreislauf.monitoring.measurement import Measurement, Quality
from kreislauf.monitoring.policy import QUESTION, Standing
from kreislauf.monitoring.tails import FRACTIONS, Tail
from kreislauf.monitoring.window_quality import WindowQuality

NOW = 1_767_225_600_000
WEEK_MS = 7 * DAY_MS


def tail(fraction: int, **numbers) -> Tail:
    """A tail of a week in which nothing is wrong, but for these numbers."""
    calm: dict = {
        "start": NOW - WEEK_MS // fraction,
        "end": NOW - 1,
        "groups": 4096 // fraction,
        "live": 0.5,
        "reference": 0.5,
        "error": 0.01,
        "label_correlation": 0.8,
        "expected_correlation": 0.8,
        "correlation_error": 0.02,
        "rest_correlation": 0.8,
        "top_label": 0.02,
        "top_label_reference": 0.02,
        "top_label_groups": 50,
        "new_label_shares": (0.001, 0.01),
        "repeats": 0.1,
        "repeats_reference": 0.1,
        "long_rows": 0.01,
        "long_groups": 1,
        "long_chance": 0.002,
        "long_rows_reference": 0.01,
    }
    return Tail(**(calm | numbers))


def tails(count: int, **numbers) -> list[Tail]:
    """All tails, of which the shortest `count` have these numbers."""
    return [tail(f, **numbers) if i < count else tail(f) for i, f in enumerate(FRACTIONS)]


def fallen(*live: float) -> list[Tail]:
    """All tails, the shortest first, with these live qualities."""
    return [tail(f, live=quality) for f, quality in zip(FRACTIONS, live, strict=True)]


REMAPPED = {"live": 0.05, "label_correlation": -0.05}


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ({}, ""),
        (REMAPPED, "ids seem to mean something else"),
        ({"live": 0.05}, ""),
        ({"label_correlation": -0.05}, ""),
        (REMAPPED | {"correlation_error": 0.1}, ""),
        ({"top_label": 0.2}, "10 times as frequent"),
        ({"top_label": 0.2, "top_label_groups": 3}, ""),
        ({"top_label": 0.09, "new_label_shares": (0.09, 0.1)}, "one new answer is 9.0%"),
        ({"top_label": 0.09, "new_label_shares": (0.09, 0.3)}, ""),
        ({"top_label": 0.09, "new_label_shares": (0.09, 0.1), "rest_correlation": 0.1}, ""),
        ({"top_label": 0.02, "new_label_shares": (0.02, 0.02)}, ""),
        ({"repeats": 0.55}, "sent twice"),
        ({"repeats": 0.2}, ""),
        ({"vanished": 0.2}, "has a category been lost"),
        ({"vanished": 0.2, "label_correlation": 0.3}, ""),
        ({"vanished": 0.2, "new_label_shares": (0.01, 0.2)}, ""),
        ({"long_rows": 0.3, "long_groups": 12}, "robots"),
        ({"long_rows": 0.3, "long_groups": 3}, ""),
        ({"long_rows": 0.3, "long_groups": 12, "long_rows_reference": 0.1}, ""),
    ],
)
def test_each_fault_of_a_tracker_is_named(numbers, words):
    fault = suspicion.fault(tails(2, **numbers))
    if not words:
        assert fault is None
        return
    assert words in fault.evidence
    assert fault.evidence.startswith("Since 3 h: ")
    assert fault.start == NOW - WEEK_MS // 16, "where the shortest tail begins that is well"
    assert fault.end == NOW - 1


def test_a_fault_that_goes_on_begins_where_what_is_left_out_ends():
    excluded = [(NOW - 20 * HOUR_MS, NOW - 6 * HOUR_MS)]
    assert suspicion.fault(tails(2, **REMAPPED), excluded).start == NOW - 6 * HOUR_MS + 1


def test_a_fault_that_all_tails_show_may_be_older_than_the_longest():
    longest = WEEK_MS // FRACTIONS[-1]
    assert suspicion.fault(tails(len(FRACTIONS), **REMAPPED)).start == NOW - 2 * longest


def test_who_trusts_the_newest_rows_has_seen_that_ids_are_new_but_not_that_events_come_twice():
    assert suspicion.fault(tails(2, **REMAPPED), trusted=True) is None
    assert suspicion.fault(tails(2, repeats=0.6), trusted=True)


def test_less_to_learn_is_a_fault_of_the_stretch_in_which_it_was_measured():
    history = list(np.random.default_rng(0).normal(0.4, 0.01, 16))
    well, broken = [
        [*tails(2), tail(16, live=0.3, refit=refit, history=history), tail(8), tail(4)]
        for refit in (0.39, 0.2)
    ]
    assert suspicion.fault(well) is None
    fault = suspicion.fault(broken)
    assert fault.noise
    assert "there is less to learn" in fault.evidence


def test_a_young_change_is_not_judged_and_an_old_one_is():
    assert not doubts.young_change(tails(0))
    young = fallen(0.3, 0.3, 0.3, 0.36, 0.43)
    assert "too new to tell" in doubts.young_change(young)
    assert not doubts.lasting_loss(young)
    old = fallen(0.3, 0.3, 0.3, 0.3, 0.3)
    assert not doubts.young_change(old)
    assert doubts.lasting_loss(old)
    assert not doubts.young_change(fallen(0.47, 0.47, 0.47, 0.47, 0.47)), "a small loss"


def test_a_loss_in_half_of_a_window_is_not_young_even_if_there_is_one_tail_only():
    only_tail = [tail(4, live=0.2)]
    assert "too new to tell" in doubts.young_change(only_tail)
    assert doubts.fills_window(only_tail, 0.4, WEEK_MS)
    assert not doubts.fills_window(only_tail, 0.2, WEEK_MS)
    assert not doubts.fills_window(only_tail, 0.4, WEEK_MS // 4), "a window that is a tail itself"
    assert not doubts.fills_window(only_tail, float("nan"), WEEK_MS)
    assert not doubts.fills_window([], 0.4, WEEK_MS)


def test_what_comes_after_a_stretch_that_is_left_out_is_judged_before_it_is_learnt_from():
    start = NOW - WEEK_MS // FRACTIONS[-1]
    mended = (NOW - 16 * HOUR_MS, NOW - 6 * HOUR_MS)
    assert doubts.unjudged([], [], start, NOW) == ""
    assert "too little" in doubts.unjudged([], [mended], start, NOW)
    assert "too little" in doubts.unjudged([tail(4)], [mended], start, NOW), "rows of before"
    assert doubts.unjudged([tail(32), tail(4)], [mended], start, NOW) == ""
    longer = (NOW - 30 * HOUR_MS, NOW - 6 * HOUR_MS)
    assert "too little" in doubts.unjudged([tail(32)], [longer], start, NOW), "seen in 12 hours"
    assert doubts.unjudged([], [(0, start - 1)], start, NOW) == "", "long ago"
    assert doubts.unjudged([], [(0, NOW + DAY_MS)], start, NOW) == "", "a person says so"
    waiting = diagnose(measurement([], excluded=[mended], tail_stretch=(start, NOW)), {}, 0.01)
    assert waiting.verdict == "undecided"


def test_a_baseline_that_falls_less_than_the_live_model_says_that_a_training_helps():
    history = [0.4, 0.41, 0.39, 0.4, 0.4, 0.4]

    def learnable(live: float, refit: float, longest: float) -> str:
        refitted = tail(8, live=live, refit=refit, history=history)
        return doubts.learnable([refitted, tail(4, live=longest)])

    assert "as good as ever (0.3900, usually 0.4000)" in learnable(0.35, 0.39, 0.35)
    assert learnable(0.35, 0.34, 0.35) == "", "noise takes from both"
    assert learnable(0.42, 0.4, 0.42) == "", "so small a loss may be noise"
    assert learnable(0.35, 0.39, 0.4) == "", "the hold-out would have all of it"
    assert doubts.learnable([tail(8, live=0.35), tail(4, live=0.35)]) == ""


def test_a_large_loss_with_other_answers_than_before_may_be_of_other_ids():
    other_answers = {"live": 0.3, "label_correlation": 0.1}
    assert "do ids mean something else" in doubts.unlike([tail(8, **other_answers), tail(4)])
    assert doubts.unlike([tail(8, live=0.3)]) == "", "the same answers"
    assert doubts.unlike([tail(8, live=0.4, label_correlation=0.1)]) == "", "a small loss"
    assert doubts.unlike([]) == ""


def test_no_training_is_asked_for_while_ids_may_mean_something_else():
    lasting = fallen(0.32, 0.32, 0.32, 0.32, 0.32)
    unlike = [each.model_copy(update={"label_correlation": 0.1}) for each in lasting]
    numbers = {"recall": (0.45, 0.5, 0.05), "refit_baseline": (0.4, 0.4, 0.05)}
    signals = {
        name: Signal(name=name, value=value, mean=mean, tolerance=tolerance, windows=16)
        for name, (value, mean, tolerance) in numbers.items()
    }
    gain = Interval(mean=0.1, low=0.09, high=0.11)
    pays = Quality(
        live=0.45, baseline=0.4, realised=gain, gain=gain, stretches=[], worst_stretch=0.8,
        new_label_shares=(0.0, 0.0),
    )  # fmt: skip

    def verdict(newest: list[Tail], **more) -> str:
        measured = measurement(newest, quality=pays, **more)
        return diagnose(measured, signals, 0.01).verdict

    assert verdict(lasting) == "concept drift"
    assert verdict(unlike) == "undecided"
    assert verdict(unlike, trusted=True) == "concept drift"
    hour = [(NOW - 2 * HOUR_MS, NOW - HOUR_MS)]
    assert verdict(lasting, excluded=hour, tail_stretch=(0, NOW - 1)) == "undecided"


def quality(newest_gain: float | None, **numbers: float) -> WindowQuality:
    readings = {"live": 0.5, "refit": 0.4, "gain": 0.0} | numbers
    gain = None
    if newest_gain is not None:
        gain = Interval(mean=newest_gain, low=newest_gain - 0.005, high=newest_gain + 0.005)
    refit = Signal(
        name="refit_baseline", value=readings["refit"], mean=0.4, tolerance=0.05, windows=16
    )
    return WindowQuality(
        live=Signal(name="recall", value=readings["live"], mean=0.5, tolerance=0.05, windows=16),
        refit=refit,
        refit_tail=refit.model_copy(update={"value": 0.39}),
        gain=Interval(mean=readings["gain"], low=readings["gain"] - 0.005, high=0.1),
        newest_gain=gain,
        worst_stretch=0.8,
        new_label_shares=(0.0, 0.0),
    )


@pytest.mark.parametrize(
    ("measured", "verdict"),
    [
        (quality(0.02), "concept drift"),
        (quality(0.001), "stable"),
        (quality(None, live=0.42), "stable"),
        (quality(None, live=0.42, gain=0.009), "concept drift"),
        (quality(0.001, live=0.42, refit=0.33), "data fault"),
        (quality(0.02, live=0.42, refit=0.33), "concept drift"),
        (quality(0.001).model_copy(update={"learnable": "As good as ever."}), "concept drift"),
        (quality(None).model_copy(update={"learnable": "As good as ever."}), "stable"),
        (quality(0.001).model_copy(update={"is_old": True}), "data fault"),
        (quality(0.02).model_copy(update={"is_old": True}), "concept drift"),
        (quality(0.001, gain=0.02).model_copy(update={"is_old": True}), "concept drift"),
        (quality(None).model_copy(update={"is_old": True}), "stable"),
    ],
)
def test_a_training_is_asked_for_only_where_it_brings_something_back(measured, verdict):
    assert judge({}, measured, min_gain=0.01).verdict == verdict


def test_ids_that_mean_something_else_in_a_window_may_be_a_new_assortment_too():
    correlation = Signal(
        name="label_correlation", value=0.1, mean=0.8, tolerance=0.05, windows=16, direction=-1
    )
    collapsed = quality(0.02).model_copy(update={"worst_stretch": 0.2})
    remapped = judge({"label_correlation": correlation}, collapsed, 0.01)
    assert (remapped.verdict, remapped.meaning) == ("data fault", True)
    placeholder = quality(0.02).model_copy(update={"new_label_shares": (0.3, 0.31)})
    top = correlation.model_copy(update={"name": "top_label", "value": -3.0, "mean": -3.0})
    ids_replaced = judge({"top_label": top}, placeholder, 0.01)
    assert (ids_replaced.verdict, ids_replaced.meaning) == ("data fault", False)


def measurement(newest: list[Tail], **more) -> Measurement:
    reference = Interval(mean=0.5, low=0.49, high=0.51)
    return Measurement(
        model="tiny", version=1, metric="recall", start=NOW - WEEK_MS, end=NOW - 1, groups=900,
        reference=reference, tails=newest, shortage="Too little.", **more,
    )  # fmt: skip


def test_the_newest_part_is_judged_before_the_window_is():
    fault = diagnose(measurement(tails(2, **REMAPPED)), {}, 0.01)
    assert (fault.verdict, fault.meaning) == ("data fault", True)
    assert fault.fault == (NOW - WEEK_MS // 16, NOW - 1)
    assert diagnose(measurement(fallen(0.3, 0.3, 0.3, 0.36, 0.43)), {}, 0.01).verdict == "undecided"
    unexplained = diagnose(measurement(fallen(0.3, 0.3, 0.3, 0.3, 0.3)), {}, 0.01)
    assert (unexplained.verdict, unexplained.evidence[0]) == ("undecided", UNEXPLAINED)
    trusted = measurement(tails(2, **REMAPPED), trusted=True)
    assert diagnose(trusted, {}, 0.01).verdict == "undecided", "new, and too new to train"


def finding(verdict: str, **more) -> Finding:
    return Finding(
        model="tiny", version=1, start=NOW - WEEK_MS, end=NOW - 1, groups=900,
        verdict=verdict, reason="Because.", metric="recall", **more,
    )  # fmt: skip


SETTINGS = policy.Settings(min_gain=0.01)


def test_trainings_wait_while_a_part_is_suspicious():
    action = policy.decide(finding("undecided"), Standing(), SETTINGS)
    assert (action.event, action.alarm, action.wait) == (None, False, "Because.")


def test_a_sharp_loss_that_stays_does_not_wait_for_the_regret():
    standing = Standing(verdicts=["concept drift"], accumulated_regret=0.1)
    assert policy.decide(finding("concept drift"), standing, SETTINGS).event is None
    assert policy.decide(finding("concept drift", sharp=True), standing, SETTINGS).event == "drift"


FAULT = (NOW - 10 * HOUR_MS, NOW - 1)


def test_a_fault_is_reported_once_and_left_out_as_long_as_it_goes_on():
    first = policy.decide(finding("data fault", fault=FAULT), Standing(), SETTINGS)
    assert (first.event, first.alarm, first.exclude) == ("fault", True, FAULT)
    later = policy.decide(finding("data fault", fault=FAULT, ongoing=True), Standing(), SETTINGS)
    assert (later.event, later.alarm, later.exclude) == (None, False, FAULT)


def test_days_that_agree_are_not_thrown_away_for_ever_and_a_person_is_asked_once():
    days = Agreement(since=NOW - 4 * DAY_MS, correlations=[0.9, 0.8])
    asked = finding("data fault", fault=FAULT, ongoing=True, agreement=days)
    action = policy.decide(asked, Standing(), SETTINGS)
    assert (action.event, action.exclude) == ("question", None)
    assert action.sentence.startswith(QUESTION)
    assert "new assortment" in action.wait
    assert "wrong ids" in action.wait
    again = policy.decide(asked, Standing(question=action.sentence), SETTINGS)
    assert (again.event, again.alarm, again.exclude) == (None, False, None)
    assert again.wait == action.wait
    row = {"model": "tiny", "version": 1, "start": FAULT[0], "end": NOW - 1}
    row |= {"action": action.sentence, "verdict": asked.verdict}
    alarms = pl.DataFrame([row])
    # A week later what was left out is no more beside the fault, and nobody has answered yet.
    later = FAULT[0] + 7 * DAY_MS, NOW + 7 * DAY_MS
    alone = Agreement(since=later[0], correlations=[])
    unanswered = asked.model_copy(update={"fault": later, "ongoing": False, "agreement": alone})
    for waiting in (asked, unanswered):
        standing = policy.standing_of(waiting, pl.DataFrame(), alarms, [], 0)
        assert policy.decide(waiting, standing, SETTINGS) == again
    verdict = HumanVerdict(
        table="tiny", start=FAULT[0], end=NOW, trusted=False, who="Ada", reason="A bug.", at=1
    )
    answered = policy.standing_of(unanswered, pl.DataFrame(), alarms, [verdict], 0)
    assert policy.decide(unanswered, answered, SETTINGS).exclude == later, "another fault"
    calm = {"model": "tiny", "version": 1, "start": NOW, "end": NOW + DAY_MS, "verdict": "stable"}
    windows = pl.DataFrame([calm | {"signal": "regret", "value": 0.0}])
    mended = policy.standing_of(unanswered, windows, alarms, [], 0)
    assert policy.decide(unanswered, mended, SETTINGS).exclude == later, "it was over in between"
    agreed = unanswered.model_copy(update={"agreement": days})
    answered = policy.standing_of(agreed, pl.DataFrame(), alarms, [verdict], 0)
    assert policy.decide(agreed, answered, SETTINGS).exclude == later, (
        "who has answered is not asked"
    )
    noise = days.model_copy(update={"correlations": [0.9, 0.1]})
    unlike = finding("data fault", fault=FAULT, ongoing=True, agreement=noise)
    assert policy.decide(unlike, Standing(), SETTINGS).exclude == FAULT


@pytest.mark.parametrize(
    "verdict", ["covariate shift", "concept drift", "undecided", "not enough data", "data fault"]
)
def test_trainings_wait_for_an_answer_whatever_the_newest_window_says(verdict):
    question = f"{QUESTION} Is it a new assortment?"
    fault = None
    if verdict == "data fault":
        fault = FAULT
    newest = finding(verdict, fault=fault, sharp=True)
    action = policy.decide(newest, Standing(question=question, verdicts=[verdict]), SETTINGS)
    assert action.wait == question
    assert not action.asks_for_retraining
    assert action.exclude == fault, "another fault is left out all the same"
    assert policy.decide(finding("stable"), Standing(), SETTINGS).wait == ""


def test_only_an_answer_that_reaches_to_the_question_and_binds_the_version_answers_it():
    asked = finding("data fault", fault=FAULT, holdout=NOW - 20 * DAY_MS)
    row = {"model": "tiny", "version": 1, "start": FAULT[0], "end": NOW - 1}
    alarms = pl.DataFrame([row | {"action": f"{QUESTION} Is it new?", "verdict": asked.verdict}])

    def question(start: int, end: int | None, trusted: bool = True) -> str:
        author = {"table": "tiny", "who": "Ada", "reason": "So.", "at": 1}
        verdict = HumanVerdict(start=start, end=end, trusted=trusted, **author)
        return policy.standing_of(asked, pl.DataFrame(), alarms, [verdict], 0).question

    assert question(NOW - 30 * DAY_MS, None), "an answer about the time before this version"
    assert question(NOW - 3 * DAY_MS, NOW - 2 * DAY_MS), "a sale that is over"
    assert not question(NOW - 4 * DAY_MS, None)
    assert not question(NOW - 4 * DAY_MS, NOW, trusted=False)


def test_an_agreement_is_sought_since_the_first_row_that_was_left_out():
    assert first_excluded([], FAULT) == FAULT[0]
    before = (FAULT[0] - DAY_MS, FAULT[0] - 1)
    assert first_excluded([(0, 5), before], FAULT) == before[0]
    assert first_excluded([(0, FAULT[0] - 2)], FAULT) == FAULT[0], "something else"


def test_a_signal_with_a_direction_alarms_in_it_only():
    past = [0.6, 0.61, 0.59, 0.6, 0.62, 0.58]

    def alarm(name: str, value: float) -> bool:
        return limits.compare({name: Measured(value=value, history=past)})[name].alarm

    assert [alarm("label_correlation", value) for value in (0.1, 0.99)] == [True, False]
    assert [alarm("top_label", value) for value in (0.1, 0.99)] == [False, True]
    assert [alarm("carts", value) for value in (0.1, 0.99)] == [True, True]


def test_hourly_looks_judge_a_week_twelve_times():
    step = WEEK_MS // cadence.WINDOWS_PER_LENGTH
    looks = [NOW + hour * HOUR_MS for hour in range(7 * 24)]
    ends = [cadence.window_end(look, WEEK_MS) for look in looks]
    assert len(set(ends)) in (12, 13)
    assert all(0 <= look - end <= step for look, end in zip(looks, ends, strict=True))
