"""The gate: what it promotes, what it refuses and why, and that its intervals are what they say."""

from dataclasses import replace

import numpy as np
import pytest

from kreislauf.evaluation import guards, split
from kreislauf.evaluation.comparison import compare_slices, winners_luck
from kreislauf.evaluation.gate import Cost, Decision, Holdout, Scores, decide
from kreislauf.evaluation.intervals import Interval, interval
from models.spec import Policy

POLICY = Policy()
GROUPS = np.repeat(np.arange(3000), 4)
START = 1_000
COST = Cost(p95_ms=3.0, megabytes=70.0, coverage=0.4)


def holdout(groups: np.ndarray = GROUPS, digest: str = "same", by: dict | None = None) -> Holdout:
    return Holdout(digest, START, groups, by or {})


def scores(recall: float, seed: int, asked: Holdout | None = None, **changed) -> Scores:
    """Answers that share most of their luck, as two models of one kind do."""
    asked = asked or holdout()
    n = len(asked.groups)
    common, own = (np.random.default_rng(s).random(n) for s in (99, seed))
    luck = np.where(np.random.default_rng(seed + 1).random(n) < 0.7, common, own)
    facts = {"trained_until": START, "onnx": f"file {seed}", "cost": COST} | changed
    return Scores((luck < recall).astype(float), asked, "recall@20", **facts)


def better(**changed) -> Scores:
    return replace(scores(0.50, 1, version=8), **changed)


def champion(**changed) -> Scores:
    return replace(scores(0.45, 2, version=7), **changed)


def baseline(**changed) -> Scores:
    return replace(scores(0.40, 5), **changed)


def judged(
    challenger_scores: Scores | None = None,
    champion_scores: Scores | None = None,
    baseline_scores: Scores | None = None,
    **policy,
) -> Decision:
    """A better challenger, an honest champion and a weak baseline, unless said otherwise."""
    return decide(
        challenger_scores or better(),
        champion_scores or champion(),
        baseline_scores or baseline(),
        POLICY.model_copy(update=policy),
    )


def on(asked: Holdout, **policy) -> Decision:
    """The same three on another hold-out."""
    three = (
        scores(0.50, 1, asked, version=8),
        scores(0.45, 2, asked, version=7),
        scores(0.40, 5, asked),
    )
    return decide(*three, POLICY.model_copy(update=policy))


def test_a_better_challenger_is_promoted():
    decision = judged()
    assert decision.outcome == "promote"
    assert decision.gain.low > 0
    assert decision.challenger > decision.champion > decision.baseline
    assert (decision.groups, decision.champion_version) == (3000, 7)
    assert "better than the champion" in decision.reasons[0]


def test_a_worse_challenger_is_refused():
    decision = judged(scores(0.45, 1, version=8), scores(0.50, 2, version=7))
    assert decision.outcome == "refuse"
    assert decision.gain.high < POLICY.min_effect


def test_too_little_data_for_a_small_gain_is_inconclusive_and_says_how_much_would_do():
    asked = holdout(GROUPS[:1200])
    three = (
        scores(0.46, 1, asked, version=8),
        scores(0.45, 2, asked, version=7),
        scores(0.40, 5, asked),
    )
    decision = decide(*three, POLICY)
    assert decision.outcome == "inconclusive"
    assert decision.gain.low < 0 < decision.gain.high
    assert decision.needed > decision.groups == 300
    assert f"About {decision.needed} groups would decide" in decision.reasons[0]
    # With so many groups and the same gain, the interval's half width is what was lacking.
    half = (decision.gain.high - decision.gain.low) / 2 * (300 / decision.needed) ** 0.5
    room = max(decision.gain.mean, POLICY.min_effect - decision.gain.mean)
    assert half == pytest.approx(room, rel=0.01)


def test_without_a_champion_the_trivial_baseline_is_the_rival():
    assert decide(better(), None, baseline(), POLICY).outcome == "promote"
    assert decide(scores(0.40, 1), None, scores(0.50, 5), POLICY).outcome == "refuse"


def test_a_challenger_that_may_be_a_little_worse_is_promoted_where_the_policy_says_so():
    equal = scores(0.449, 1, version=8)
    assert judged(equal).outcome == "refuse"
    decision = judged(equal, superiority_margin=-0.03)
    assert decision.outcome == "promote"
    assert "no worse by 0.03 than the champion" in decision.reasons[0]
    assert judged(superiority_margin=0.2).outcome != "promote"


def shuffled(original: Scores) -> Scores:
    order = np.random.default_rng(0).permutation(len(original.values))
    return replace(
        original,
        values=original.values[order],
        holdout=replace(original.holdout, groups=original.holdout.groups[order]),
    )


def spoilt(original: Scores, value: float) -> Scores:
    return replace(
        original, values=np.where(np.arange(len(original.values)) == 5, value, original.values)
    )


def collapsed() -> Scores:
    """Far better, but useless for the tenth of the sessions that is long."""
    asked = holdout(by={"length": np.where(GROUPS < 300, "long", "short")})
    answered = scores(0.60, 1, asked, version=8)
    return replace(answered, values=np.where(GROUPS < 300, 0.0, answered.values))


def sure(share: float) -> np.ndarray:
    return np.full(len(GROUPS), share)


# What fools a gate, and the sentence that says so. Each changes one thing about a decision to
# promote.
FAULTS = {
    "the challenger learnt from the hold-out": (
        {"challenger_scores": better(trained_until=START + 1)},
        "challenger was trained on",
    ),
    "the champion learnt from the hold-out": (
        {"champion_scores": champion(trained_until=START + 1)},
        "champion was trained on",
    ),
    "the baseline learnt from the hold-out": (
        {"baseline_scores": baseline(trained_until=10**13)},
        "baseline was trained on",
    ),
    "the champion's scores are of an older hold-out": (
        {"champion_scores": champion(holdout=holdout(digest="last week's"))},
        "champion answered a different hold-out",
    ),
    "the baseline's scores are of another hold-out": (
        {"baseline_scores": baseline(holdout=holdout(digest="another"))},
        "baseline answered a different hold-out",
    ),
    "the champion's scores are shuffled": (
        {"champion_scores": shuffled(champion())},
        "champion answered a different hold-out",
    ),
    "scores are missing": (
        {"champion_scores": champion(values=np.ones(11_999))},
        r"champion has scores of shape \(11999,\)",
    ),
    "scores have a column too many": (
        {"challenger_scores": better(values=np.ones((12_000, 2)))},
        r"shape \(12000, 2\) for 12000",
    ),
    "a score is no number": (
        {"challenger_scores": spoilt(better(), np.nan)},
        "1 scores of the challenger are not numbers",
    ),
    "all of the champion's scores are no numbers": (
        {"champion_scores": champion(values=np.full(12_000, np.nan))},
        "12000 scores of the champion are not numbers",
    ),
    "a score is infinite": (
        {"challenger_scores": spoilt(better(), np.inf)},
        "1 scores of the challenger are not numbers",
    ),
    "the baseline's score is no number": (
        {"baseline_scores": spoilt(baseline(), -np.inf)},
        "of the baseline are not numbers",
    ),
    "the metrics differ": (
        {"champion_scores": champion(metric="mrr@20")},
        "champion was scored by mrr@20",
    ),
    "the challenger is the champion": (
        {"champion_scores": better()},
        "challenger is the champion, version 8",
    ),
    "the champion was registered again": (
        {"challenger_scores": champion(version=8), "champion_scores": champion()},
        "the same file as the champion, version 7",
    ),
    "the arguments are swapped": (
        {"challenger_scores": champion(), "champion_scores": better()},
        "are they swapped",
    ),
    "an old version is judged as if it were new": (
        {"challenger_scores": better(version=3)},
        "no later than the champion, version 7",
    ),
    "the challenger was never registered": (
        {"challenger_scores": better(version=None)},
        "no later than the champion",
    ),
    "a slice collapses": (
        {"challenger_scores": collapsed()},
        r"loses more than 0.01 where length long \(300 groups\): -0\.\d+",
    ),
    "the baseline is better": (
        {"baseline_scores": scores(0.6, 5)},
        "worse than the trivial baseline",
    ),
    "the challenger is slow": (
        {"challenger_scores": better(cost=replace(COST, p95_ms=80.0))},
        "p95 is 80.0 ms; 25 ms are allowed",
    ),
    "its time is no number": (
        {"challenger_scores": better(cost=replace(COST, p95_ms=np.nan))},
        "p95 is nan ms",
    ),
    "the challenger is huge": (
        {"challenger_scores": better(cost=replace(COST, megabytes=9e3))},
        "9000.0 MB; 2000 MB are allowed",
    ),
    "nobody measured what it costs": ({"challenger_scores": better(cost=None)}, "was not measured"),
    "it always answers the same": (
        {"challenger_scores": better(cost=replace(COST, coverage=0.01))},
        "1.0% of the catalogue; 20.0%",
    ),
    "it is too sure of itself": (
        {"challenger_scores": better(probabilities=sure(0.9))},
        r"off by 0\.\d+ on average; 0.05 is",
    ),
    "its probabilities are none": (
        {"challenger_scores": better(probabilities=sure(1.2))},
        "off by nan on average",
    ),
    "there are too few sessions": (
        {"min_groups": 5_000},
        "3000 groups, and the policy wants at least 5000",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_would_fool_the_gate_is_refused_with_its_reason(fault: str):
    change, says = FAULTS[fault]
    if fault == "a slice collapses":
        asked = change["challenger_scores"].holdout
        change = change | {
            "champion_scores": champion(holdout=asked),
            "baseline_scores": baseline(holdout=asked),
        }
    decision = judged(**change)
    assert decision.outcome == "refuse"
    with pytest.raises(AssertionError, match=says):
        raise AssertionError(" ".join(decision.reasons))


def test_an_empty_hold_out_and_a_missing_baseline_are_refused():
    empty = on(holdout(np.zeros(0, np.int64)))
    assert (empty.outcome, empty.groups, empty.gain) == ("refuse", 0, None)
    alone = decide(better(), champion(), None, POLICY)
    assert alone.outcome == "refuse"
    assert "no scores of the trivial baseline" in alone.reasons[0]


def test_all_that_is_wrong_is_said_at_once():
    reasons = judged(
        better(trained_until=START + 1, values=np.ones(3)), spoilt(champion(), np.nan)
    ).reasons
    assert len(reasons) == 3


def test_one_session_with_half_of_the_examples_decides_nothing():
    """It is one group, however many rows it has."""
    groups = np.r_[np.arange(600), np.full(600, 600)]
    asked = holdout(groups)
    two = (Scores(np.zeros(1200), asked, "recall@20", START, str(i), 7 + i, COST) for i in range(2))
    champion, challenger = two
    lucky = replace(challenger, values=(groups == 600).astype(float))
    table = replace(champion, version=None, onnx="table")
    assert decide(lucky, champion, table, POLICY).outcome == "inconclusive"


def test_probabilities_that_are_right_on_average_pass():
    honest = better()
    assert judged(replace(honest, probabilities=sure(honest.values.mean()))).outcome == "promote"
    mixed = np.random.default_rng(0).random(20_000)
    right = (np.random.default_rng(1).random(20_000) < mixed).astype(float)
    assert guards.calibration_error(mixed, right) < 0.02
    assert guards.calibration_error(mixed, 1 - right) == pytest.approx(0.5, abs=0.02)


def test_the_interval_agrees_with_the_textbook_when_groups_are_single():
    groups = np.arange(4000)
    paired = scores(0.5, 1, holdout(groups)).values - scores(0.45, 2, holdout(groups)).values
    expected = 1.96 * paired.std(ddof=1) / np.sqrt(len(paired))
    ours = interval(paired, groups, 0.95)
    assert ours.mean == pytest.approx(paired.mean())
    assert (ours.high - ours.low) / 2 == pytest.approx(expected, rel=0.06)


def test_dependent_examples_widen_the_interval():
    """Four copies of each example are no new information: the width must be that of the
    originals."""
    groups = np.arange(1000)
    paired = scores(0.5, 1, holdout(groups)).values - scores(0.45, 2, holdout(groups)).values
    copied = interval(np.repeat(paired, 4), np.repeat(groups, 4), 0.95)
    single = interval(paired, groups, 0.95)
    assert copied.model_dump() == pytest.approx(single.model_dump())


def test_slices_agree_with_the_bootstrap_and_hold_for_all_at_once():
    rng = np.random.default_rng(0)
    groups = np.sort(rng.integers(0, 2000, 9000))
    difference = rng.normal(0.02, 0.4, 9000) + rng.normal(0, 0.3, 2000)[groups]
    kinds = np.array(["a", "b", "c"])[rng.choice(3, 9000, p=[0.6, 0.39, 0.01])]
    compared = compare_slices(
        difference, Holdout("", 0, groups, {"kind": kinds, "all": np.full(9000, "x")}), POLICY
    )
    assert [(part.by, part.value) for part in compared] == [
        ("kind", "a"),
        ("kind", "b"),
        ("all", "x"),
    ], "c is too small"
    for part in compared[:2]:
        inside = kinds == part.value
        strict = interval(difference[inside], groups[inside], 1 - 0.05 / 3)
        assert part.gain.model_dump() == pytest.approx(strict.model_dump(), abs=0.003)
        assert part.groups == len(np.unique(groups[inside]))


def test_a_slice_that_may_be_chance_stops_nobody():
    kinds = np.random.default_rng(3).choice([f"kind {i}" for i in range(10)], len(GROUPS))
    assert on(holdout(by={"kind": kinds})).outcome == "promote"


def test_the_smallest_effect_that_a_hold_out_finds_is_that_of_the_formula_backwards():
    needed = split.groups_needed(POLICY)
    assert split.detectable(needed, POLICY) == pytest.approx(POLICY.min_effect, rel=0.01)
    assert split.detectable(4 * needed, POLICY) == pytest.approx(POLICY.min_effect / 2, rel=0.01)


@pytest.mark.parametrize("true_gain", [1.0, 2.0, 3.0])
def test_the_reference_of_a_winner_is_without_its_luck(true_gain: float):
    """In standard errors of the gain; the two models share half of their luck."""
    rng = np.random.default_rng(0)
    error = 0.005
    noise = rng.multivariate_normal([0, 0], [[1, 0.5], [0.5, 1]], 4_000) * error
    cloud = rng.multivariate_normal([0, 0], [[1, 0.5], [0.5, 1]], 500) * error
    raw, corrected = [], []
    for challenger, rival in noise:
        gain = true_gain * error + challenger - rival
        shown = Interval(mean=gain, low=gain - 1.96 * error, high=gain + 1.96 * error)
        if shown.low > 0:
            luck = winners_luck(cloud[:, 0], cloud[:, 0] - cloud[:, 1], shown, POLICY)
            raw.append(challenger / error)
            corrected.append((challenger - luck) / error)
    assert np.mean(raw) > 0.1
    assert abs(np.mean(corrected)) < 0.5 * np.mean(raw)


def test_only_a_winner_is_corrected_and_its_score_is_shown_as_it_was():
    close = judged(scores(0.47, 1, version=8), superiority_margin=0.0)
    assert close.outcome == "promote"
    assert close.gain.low < close.gain.mean / 2, "it won by little"
    assert close.reference.mean < close.challenger
    inconclusive = judged(scores(0.452, 1, version=8))
    assert inconclusive.outcome != "promote"
    assert inconclusive.reference.mean == inconclusive.challenger
    first = decide(better(), None, baseline(), POLICY)
    assert first.reference.mean == first.challenger


def test_the_reference_of_one_day_is_as_uncertain_as_days_differ():
    narrow = judged().reference
    wide = judged(day_sd=0.02).reference
    assert wide.mean == narrow.mean
    half = np.hypot(wide.mean - narrow.low, 1.96 * 0.02)
    assert wide.mean - wide.low == pytest.approx(half, rel=0.001)
    week = Holdout("same", START, GROUPS, days=7)
    of_a_week = on(week, day_sd=0.02).reference
    assert of_a_week.high - of_a_week.low < (wide.high - wide.low) / 2


def test_equal_models_are_hardly_ever_promoted():
    """Under the null, 2.5 % of the intervals lie wholly above zero: of 100 draws, 7 or more are a 1
    % accident."""
    asked = holdout(np.repeat(np.arange(400), 3))
    table = scores(0.3, 5, asked)
    promoted = sum(
        decide(
            scores(0.45, 10 + 2 * i, asked, version=8),
            scores(0.45, 11 + 2 * i, asked, version=7),
            table,
            POLICY,
        ).outcome
        == "promote"
        for i in range(100)
    )
    assert promoted < 7


def test_a_click_on_what_the_champion_showed_counts_less():
    challenger, rival = better(), champion()
    missed = (challenger.values == 0) & (rival.values == 0)
    clicked = missed & (np.random.default_rng(3).random(len(missed)) < 0.1)
    shown = replace(rival, values=np.where(clicked, 1.0, rival.values))
    true = judged().gain.mean
    counted = judged(champion_scores=shown)
    asked = replace(holdout(), clicked=clicked)
    named = [replace(each, holdout=asked) for each in (challenger, shown, baseline())]
    weighed = judged(*named)
    assert counted.clicked == 0
    assert weighed.clicked == clicked.mean()
    assert counted.gain.mean == pytest.approx(true - clicked.mean(), abs=0.001)
    expected = (true - 0.75 * clicked.mean()) / (1 - 0.25 * clicked.mean())
    assert weighed.gain.mean == pytest.approx(expected, abs=0.001)
    assert weighed.over_baseline == counted.over_baseline
