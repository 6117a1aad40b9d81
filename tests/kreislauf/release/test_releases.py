import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kreislauf.release import releases
from kreislauf.release.releases import ReleaseConflict


@pytest.fixture(params=["disk", "s3"])
def log(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    """A release log on each kind of storage."""
    if request.param == "disk":
        return
    request.getfixturevalue("s3")
    monkeypatch.setenv("KREISLAUF_RELEASES", "s3://shop/releases")


@pytest.mark.usefixtures("log")
def test_the_newest_entry_is_in_force_and_remembers_the_one_before():
    assert releases.current("m") is None
    first = releases.append("m", 3, "better", "me", after=None)
    second = releases.append("m", 5, "better still", "me", after=first)
    assert releases.current("m") == second
    assert (second.number, second.champion, second.previous, second.versions) == (2, 5, 3, [3, 5])
    assert releases.history("m") == [first, second]
    assert releases.history("another") == []


def test_the_version_of_a_time_is_the_newest_that_knew_only_what_was_before():
    assert releases.champion_at("m", 500) is None
    release = None
    for version, watermark in ((1, 100), (2, 100), (3, 200)):
        release = releases.append("m", version, "better", "me", after=release, watermark=watermark)
    champions = {time: releases.champion_at("m", time) for time in (100, 101, 200, 201)}
    assert champions == {100: None, 101: 2, 200: 2, 201: 3}


@pytest.mark.usefixtures("log")
def test_of_two_who_publish_at_once_one_wins_and_the_other_is_told():
    first = releases.append("m", 1, "first", "me", after=None)

    def publish(version: int):
        try:
            return releases.append("m", version, "race", "me", after=first)
        except ReleaseConflict as error:
            return error

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(publish, range(2, 10)))
    winners = [r for r in results if not isinstance(r, ReleaseConflict)]
    assert len(winners) == 1
    assert releases.history("m") == [first, winners[0]]
    assert all(
        "judge it against the new champion" in str(r)
        for r in results
        if isinstance(r, ReleaseConflict)
    )


@pytest.mark.usefixtures("log")
def test_two_who_say_the_same_at_once_are_told_apart():
    first = releases.append("m", 1, "weekly", "cron", after=None)
    releases.append("m", 2, "weekly", "cron", after=first)
    with pytest.raises(ReleaseConflict):
        releases.append("m", 2, "weekly", "cron", after=first)


def test_a_log_that_must_not_be_read_is_not_an_empty_one(home: Path):
    releases.append("m", 1, "first", "me", after=None)
    folder = home / "releases" / "m"
    folder.chmod(0o000)
    user = os.geteuid()
    if user == 0:  # The superuser may read everything.
        for parent in folder.parents[:3]:
            parent.chmod(0o755)
        os.seteuid(65534)
    try:
        with pytest.raises(PermissionError):
            releases.current("m")
    finally:
        os.seteuid(user)
        folder.chmod(0o755)


def test_a_hold_goes_on_until_it_is_lifted():
    first = releases.append("m", 1, "first", "me", after=None)
    second = releases.append("m", 2, "a rollback", "me", after=first, hold="Clicks fell.")
    third = releases.append("m", 2, "a test", "me", after=second, challenger=3)
    assert (first.hold, second.hold, third.hold) == ("", "Clicks fell.", "Clicks fell.")
    assert releases.hold("m") == "Clicks fell."
    releases.append("m", 2, "lifted", "me", after=third, challenger=3, hold="")
    assert releases.hold("m") == releases.hold("n") == ""


def test_entries_say_when_they_were_written_and_the_newest_are_read_alone(log):
    assert releases.first("m") is None
    assert releases.history("m", newest=2) == []
    before = time.time() * 1000
    release = None
    for version in (1, 2, 3):
        release = releases.append("m", version, "weekly", "cron", after=release)
    assert before - 1 <= release.at <= time.time() * 1000
    assert [entry.champion for entry in releases.history("m", newest=2)] == [2, 3]
    assert releases.first("m").champion == 1
    old = release.model_dump(exclude={"at"})
    assert releases.Release.model_validate(old).at is None
