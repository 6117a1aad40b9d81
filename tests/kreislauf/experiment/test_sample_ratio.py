"""Missing users are seen, and sound splits are not suspected, however often they are looked at."""

import numpy as np
import pytest

from kreislauf.experiment import sample_ratio


@pytest.mark.parametrize("share", [0.5, 0.1])
def test_sound_splits_are_not_suspected_at_any_of_many_looks(share):
    suspected = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        challenger = (rng.random(50_000) < share).cumsum()
        suspected += sample_ratio.is_mismatch(np.arange(1, 50_001), challenger, share).any()
    assert suspected <= 2


def test_a_lost_twentieth_is_seen_soon():
    rng = np.random.default_rng(1)
    is_challenger = rng.random(200_000) < 0.5
    stays = ~is_challenger | (rng.random(200_000) < 0.95)
    challenger = is_challenger[stays].cumsum()
    mismatch = sample_ratio.is_mismatch(np.arange(1, len(challenger) + 1), challenger, 0.5)
    assert 5_000 < np.argmax(mismatch) < 150_000


def test_one_user_proves_nothing():
    assert not sample_ratio.is_mismatch(1, 1, 0.5)
    assert not sample_ratio.is_mismatch(0, 0, 0.01)
