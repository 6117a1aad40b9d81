"""100,000 users: the share is right, stable, and independent between experiments."""

import pytest

from kreislauf.exposures import pseudonym
from kreislauf.release.releases import Release
from serving import parsing, split

USERS = [f"user-{number}" for number in range(100_000)]


def challenged(share: float, salt: str = "m-2") -> set[str]:
    release = Release(
        model="m",
        number=2,
        champion=1,
        challenger=2,
        share=share,
        salt=salt,
        reason="a test",
        who="a test",
    )
    return {user for user in USERS if split.assign(release, user) == (2, "challenger", release)}


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9])
def test_the_share_is_exact_within_the_noise_of_a_binomial(share: float):
    deviation = (share * (1 - share) / len(USERS)) ** 0.5
    assert abs(len(challenged(share)) / len(USERS) - share) < 4 * deviation


def test_all_and_nobody():
    assert challenged(0.0) == set()
    assert challenged(1.0) == set(USERS)


def test_a_changed_share_moves_only_whom_it_must():
    assert challenged(0.1) == challenged(0.1)
    assert challenged(0.1) < challenged(0.3)


def test_another_experiment_draws_anew():
    share = len(challenged(0.5) & challenged(0.5, "m-3")) / len(USERS)
    assert abs(share - 0.25) < 4 * (0.25 * 0.75 / len(USERS)) ** 0.5


def test_a_pseudonym_tells_users_apart_and_nothing_else():
    names = {pseudonym(user, b"a key") for user in USERS}
    assert len(names) == len(USERS)
    assert {len(name) for name in names} == {25}


def test_who_has_no_name_is_the_session():
    assert parsing.pop_user({"session": 7, "user": "anna"}) == "anna"
    assert parsing.pop_user({"session": 7}) == "7"
    assert parsing.pop_user({"price": 7}) is None
