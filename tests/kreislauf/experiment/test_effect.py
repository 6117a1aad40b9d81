"""The difference of two rates, and its variance."""

import numpy as np
import polars as pl
import pytest
import tea_tasting

from kreislauf.experiment import effect
from kreislauf.experiment.effect import Moments


def users(count: int, lift: float, rng: np.random.Generator, history: bool = True) -> np.ndarray:
    """Clicks and answers of users, and those before: (n, 4). Some like much what they see."""
    answers = 1 + rng.poisson(rng.lognormal(1, 0.8, count))
    liking = rng.beta(1, 9, count)
    earlier = rng.poisson(6, count) * (rng.random(count) < 0.7) * history
    clicks = rng.binomial(answers, liking * (1 + lift))
    return np.column_stack([clicks, answers, rng.binomial(earlier, liking), earlier]).astype(float)


def test_the_standard_error_is_that_of_repeated_experiments():
    rng = np.random.default_rng(1)
    estimates = [
        effect.difference(
            Moments.of(users(1_500, 0.0, rng)),
            Moments.of(users(600, 0.2, rng)),
        )
        for _ in range(400)
    ]
    differences = np.array([estimate.difference for estimate in estimates])
    errors = np.sqrt([estimate.variance for estimate in estimates])
    assert differences.mean() == pytest.approx(0.02, abs=3 * differences.std() / 20)
    assert differences.std() == pytest.approx(errors.mean(), rel=0.1)
    ratio = np.mean([e.variance / e.unadjusted_variance for e in estimates])
    assert ratio < 0.95, "what was before explains a part"


def test_users_without_a_past_are_compared_as_they_are():
    rng = np.random.default_rng(2)
    champion, challenger = (users(500, lift, rng, history=False) for lift in (0.0, 0.3))
    estimate = effect.difference(Moments.of(champion), Moments.of(challenger))
    rates = [arm[:, 0].sum() / arm[:, 1].sum() for arm in (champion, challenger)]
    assert estimate.difference == pytest.approx(rates[1] - rates[0])
    assert estimate.variance == estimate.unadjusted_variance


def test_an_arm_without_any_hit_is_not_certain():
    rng = np.random.default_rng(6)
    champion, challenger = (users(900, 0.0, rng) for _ in range(2))
    challenger[:, 0] = 0
    estimate = effect.difference(Moments.of(champion), Moments.of(challenger))
    own = effect.difference(Moments.of(champion), Moments.of(champion)).unadjusted_variance / 2
    assert estimate.unadjusted_variance > 1.3 * own


def test_it_agrees_with_tea_tasting():
    rng = np.random.default_rng(3)
    arms = [users(2_000, 0.0, rng), users(900, 0.2, rng)]
    frame = pl.concat(
        pl.DataFrame(arm, schema=["hits", "trials", "hits_before", "trials_before"]).with_columns(
            variant=pl.lit(number)
        )
        for number, arm in enumerate(arms)
    )
    ours = effect.difference(*map(Moments.of, arms))
    plain = tea_tasting.RatioOfMeans("hits", "trials", use_t=False)
    adjusted = tea_tasting.RatioOfMeans(
        "hits",
        "trials",
        numer_covariate="hits_before",
        denom_covariate="trials_before",
        use_t=False,
    )
    theirs = tea_tasting.Experiment(plain=plain, adjusted=adjusted).analyze(frame)

    def variance(result) -> float:
        return ((result.effect_size_ci_upper - result.effect_size_ci_lower) / 2 / 1.959964) ** 2

    assert ours.unadjusted_variance == pytest.approx(variance(theirs["plain"]), rel=0.02)
    assert ours.difference == pytest.approx(theirs["adjusted"].effect_size, abs=5e-4)
    assert ours.variance == pytest.approx(variance(theirs["adjusted"]), rel=0.03)


def test_many_looks_are_as_each_alone():
    rng = np.random.default_rng(4)
    arms = [[users(300, 0.1, rng) for _ in range(3)] for _ in range(2)]
    stacked = [
        Moments(*(np.stack(values) for values in zip(*map(_fields, arm), strict=True)))
        for arm in arms
    ]
    together = effect.difference(*stacked)
    alone = [effect.difference(Moments.of(a), Moments.of(b)) for a, b in zip(*arms, strict=True)]
    assert together.difference == pytest.approx([float(e.difference) for e in alone])
    assert together.variance == pytest.approx([float(e.variance) for e in alone])


def _fields(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    moments = Moments.of(numbers)
    return moments.users, moments.sums, moments.products
