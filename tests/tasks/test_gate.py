import numpy as np
import pytest

from models.spec import Policy
from tasks.gate import Scores, decide, difference

POLICY = Policy()
GROUPS = np.repeat(np.arange(3000), 4)
HOLDOUT = 1_000


def scores(recall: float, seed: int, groups: np.ndarray = GROUPS, digest: str = "same", until: int = HOLDOUT) -> Scores:
    """Answers that share most of their luck, as two models of one kind do."""
    common = np.random.default_rng(99).random(len(groups))
    own = np.random.default_rng(seed).random(len(groups))
    luck = np.where(np.random.default_rng(seed + 1).random(len(groups)) < 0.7, common, own)
    return Scores((luck < recall).astype(float), groups, digest, until)


def gate(challenger: Scores, champion: Scores | None, baseline: Scores | None = None, policy: Policy = POLICY):
    return decide(challenger, champion, baseline or scores(0.40, 5), policy, "recall@20", HOLDOUT)


def test_a_better_challenger_is_promoted():
    decision = gate(scores(0.50, 1), scores(0.45, 2))
    assert decision.outcome == "promote"
    assert decision.gain.low > 0
    assert decision.challenger > decision.champion > decision.baseline
    assert decision.groups == 3000
    assert "better than the champion" in decision.reasons[0]


def test_a_worse_challenger_is_refused():
    decision = gate(scores(0.45, 1), scores(0.50, 2))
    assert decision.outcome == "refuse"
    assert decision.gain.high < POLICY.min_effect


def test_too_little_data_for_a_small_gain_is_inconclusive():
    few = GROUPS[:1200]
    decision = gate(scores(0.46, 1, few), scores(0.45, 2, few), scores(0.40, 5, few))
    assert decision.outcome == "inconclusive"
    assert decision.gain.low < 0 < decision.gain.high


def test_without_a_champion_the_trivial_baseline_is_the_rival():
    assert gate(scores(0.45, 1), None, scores(0.44, 5)).outcome == "promote"
    assert gate(scores(0.40, 1), None, scores(0.50, 5)).outcome == "refuse"


def test_a_challenger_below_the_trivial_baseline_is_refused_even_if_it_beats_the_champion():
    decision = gate(scores(0.40, 1), scores(0.30, 2), scores(0.50, 5))
    assert decision.outcome == "refuse"
    assert "trivial baseline" in decision.reasons[0]


@pytest.mark.parametrize(
    ("champion", "says"),
    [
        (scores(0.45, 2, digest="another"), "answered a different hold-out"),
        (scores(0.45, 2, until=HOLDOUT + 1), "champion was trained on part of the hold-out"),
        (Scores(np.full(len(GROUPS), np.nan), GROUPS, "same", HOLDOUT), "12000 scores of the champion are not numbers"),
    ],
)
def test_what_cannot_be_compared_is_refused(champion: Scores, says: str):
    decision = gate(scores(0.9, 1), champion)
    assert decision.outcome == "refuse"
    assert any(says in reason for reason in decision.reasons)
    assert decision.gain is None


def test_a_challenger_that_saw_the_hold_out_is_refused():
    assert gate(scores(0.9, 1, until=HOLDOUT + 1), scores(0.4, 2)).outcome == "refuse"


def test_a_small_hold_out_is_refused():
    few = np.arange(50)
    decision = gate(scores(0.9, 1, few), scores(0.1, 2, few), scores(0.1, 5, few))
    assert decision.outcome == "refuse"
    assert "50 groups" in decision.reasons[0]


def test_the_interval_agrees_with_the_textbook_when_groups_are_single():
    one, other = scores(0.5, 1, np.arange(4000)), scores(0.45, 2, np.arange(4000))
    paired = one.values - other.values
    expected = 1.96 * paired.std(ddof=1) / np.sqrt(len(paired))
    found = difference(one, other, 0.95)
    assert found.mean == pytest.approx(paired.mean())
    assert (found.high - found.low) / 2 == pytest.approx(expected, rel=0.06)


def test_dependent_examples_widen_the_interval():
    """Four copies of each example are no new information: the width must be that of the originals."""
    single = difference(scores(0.5, 1, np.arange(1000)), scores(0.45, 2, np.arange(1000)), 0.95)
    one, other = (scores(r, s, np.arange(1000)) for r, s in ((0.5, 1), (0.45, 2)))
    groups = np.repeat(np.arange(1000), 4)
    copied = difference(
        Scores(np.repeat(one.values, 4), groups, "", 0), Scores(np.repeat(other.values, 4), groups, "", 0), 0.95
    )
    assert copied == single


def test_equal_models_are_hardly_ever_promoted():
    """Under the null, 2.5 % of the intervals lie wholly above zero: of 100 draws, 7 or more are a 1 % accident."""
    few = np.repeat(np.arange(400), 3)
    baseline = scores(0.3, 5, few)
    promoted = sum(
        gate(scores(0.45, 10 + 2 * i, few), scores(0.45, 11 + 2 * i, few), baseline).outcome == "promote"
        for i in range(100)
    )
    assert promoted < 7
