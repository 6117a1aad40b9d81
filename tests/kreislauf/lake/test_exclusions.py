"""What is left out of trainings: people win over the monitor, newer verdicts over older ones."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from kreislauf.lake import exclusions, journal
from kreislauf.lake.exclusions import NO_END, HumanVerdict


def say(start: int, end: int | None, at: int, trusted: bool = True, **about) -> HumanVerdict:
    facts = {"table": "orders", "who": "Ada", "reason": "A sale."} | about
    verdict = HumanVerdict(start=start, end=end, at=at, trusted=trusted, **facts)
    exclusions.record_verdict(verdict)
    return verdict


def test_a_person_wins_over_the_monitor_whichever_speaks_last(storage):
    exclusions.exclude("orders", 10, 19, "Noise.")
    assert exclusions.intervals("orders") == [(10, 19)]
    verdict = say(12, 14, at=1)
    assert exclusions.intervals("orders") == [(10, 11), (15, 19)]
    exclusions.exclude("orders", 12, 25, "Noise again.")
    assert exclusions.intervals("orders") == [(10, 11), (15, 25)]
    assert exclusions.trusted("orders") == [(12, 14)]
    assert exclusions.verdicts("orders") == [verdict]
    assert exclusions.intervals("events") == exclusions.trusted("events") == []


def test_the_newest_verdict_of_people_wins_moment_by_moment():
    say(10, 29, at=1)
    say(20, 39, at=3, trusted=False)
    say(15, 34, at=2)
    assert exclusions.trusted("orders") == [(10, 19)]
    assert exclusions.intervals("orders") == [(20, 39)]
    say(0, None, at=4)
    assert exclusions.trusted("orders") == [(0, NO_END)]
    assert exclusions.intervals("orders") == []


def test_a_verdict_without_end_holds_until_the_monitor_compares_with_what_it_is_about():
    say(100, None, at=1)
    exclusions.exclude("orders", 120, 140, "Remapped ids.", holdout=50)
    assert exclusions.intervals("orders") == []
    exclusions.exclude("orders", 300, 340, "A placeholder.", holdout=200)
    assert exclusions.intervals("orders") == [(300, 340)]
    assert exclusions.trusted("orders", holdout=50) == [(100, NO_END)]
    assert exclusions.trusted("orders", holdout=200) == []
    say(330, 335, at=2)
    assert exclusions.intervals("orders") == [(300, 329), (336, 340)]


def test_rows_of_an_earlier_version_stand_beside_those_of_today():
    import polars as pl

    row = {"table": "orders", "start": 1, "end": 5, "reason": "A clock."}
    journal.append_once(exclusions.DISTRUSTED, "orders/1/5", pl.DataFrame([row]))
    assert exclusions.intervals("orders") == [(1, 5)]
    exclusions.exclude("orders", 9, 12, "Noise.", holdout=3)
    assert exclusions.intervals("orders") == [(1, 5), (9, 12)]
    say(2, None, at=1)
    assert exclusions.intervals("orders") == [(1, 1), (9, 12)]


@pytest.mark.parametrize("empty", [{"who": ""}, {"reason": ""}])
def test_a_verdict_has_a_name_and_a_reason(empty: dict):
    with pytest.raises(ValidationError):
        say(1, 2, at=1, **empty)


stretches = st.lists(
    st.tuples(st.integers(0, 30), st.integers(0, 8)).map(lambda drawn: (drawn[0], sum(drawn))),
    max_size=5,
)


@given(stretches, stretches)
def test_stretches_are_sets_of_moments(some, holes):
    def moments(stretches) -> set[int]:
        return {moment for start, end in stretches for moment in range(start, end + 1)}

    assert moments(exclusions.subtract(some, holes)) == moments(some) - moments(holes)
    merged = exclusions.merge(some)
    assert moments(merged) == moments(some)
    assert all(a[1] + 1 < b[0] for a, b in itertools.pairwise(merged))
