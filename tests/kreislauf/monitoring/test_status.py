"""What the monitor leaves for others, and what it learns from the gateway's tables."""

import time

import numpy as np
import polars as pl
import pytest

from kreislauf.clock import DAY_MS
from kreislauf.lake import journal
from kreislauf.monitoring import alarms, feedback, status, tables
from kreislauf.monitoring.finding import Finding
from kreislauf.monitoring.policy import Action

START = 1_700_000_000_000


def test_the_newest_status_replaces_the_older_and_no_release_is_touched(home):
    assert status.read("tiny") is None
    first = status.MonitorStatus(model="tiny", version=1, end=START, at=START, verdict="stable")
    status.write(first)
    newer = first.model_copy(
        update={"signals": {"live": status.SignalStatus(value=0.5, mean=0.4, tolerance=0.2)}}
    )
    status.write(newer)
    assert status.read("tiny") == newer
    assert [path.name for path in (home / "releases" / "tiny").iterdir()] == ["monitor.json"]


def test_trainings_wait_for_what_the_newest_run_says_of_the_live_version_and_not_for_ever(home):
    assert status.wait("tiny", 1) == ""
    now = int(time.time() * 1000)
    fields = {"model": "tiny", "end": START, "verdict": "undecided", "wait": "Too new."}
    status.write(status.MonitorStatus(version=1, at=now, **fields))
    assert status.wait("tiny", 1) == "Too new."
    assert status.wait("tiny", 2) == "", "another version is live"
    status.write(status.MonitorStatus(version=1, at=now - 2 * DAY_MS, **fields))
    assert status.wait("tiny", 1) == "", "the monitor has not run for a day"


def test_a_status_on_s3(s3, monkeypatch):
    monkeypatch.setenv("KREISLAUF_RELEASES", "s3://shop/releases")
    first = status.MonitorStatus(model="tiny", version=1, end=START, at=START, verdict="stable")
    status.write(first)
    assert status.read("tiny") == first


def test_alarms_that_asked_are_resolved_by_the_training_that_saw_them():
    about = {"model": "tiny", "version": 1, "groups": 9, "verdict": "concept drift"}
    for day, event in ((1, "drift"), (2, None), (3, "decay")):
        finding = Finding(start=START, end=START + day, reason="It did.", **about)
        alarms.record(finding, Action(sentence="Something.", event=event))
    alarms.resolve("other", START + 9, "Trained.")
    for _ in range(2):
        alarms.resolve("tiny", START + 2, "Trained.")
    rows = journal.read(tables.ALARMS).sort("end", "action")
    assert rows.select(pl.col("end") - START, "action").rows() == [
        (1, "Something."), (1, "Trained."), (2, "Something."), (3, "Something."),
    ]  # fmt: skip


def answers(count: int, clicked: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Answers of two versions to users of two answers each, of which the first ones were
    clicked."""
    number = np.arange(count)
    shown = pl.DataFrame(
        {
            "request_id": [f"r{i}" for i in number],
            "ts": START + number,
            "user": [f"u{i // 2}" for i in number],
            "version": number % 2 + 1,
            "variant": np.where(number % 2 == 0, "champion", "challenger"),
        }
    )
    done = pl.DataFrame(
        {
            "request_id": [f"r{i // 2}" for i in range(2 * clicked)],
            "kind": ["click", "order"] * clicked,
        }
    )
    return shown, done


def test_each_answer_gets_what_became_of_it_once():
    shown, done = answers(100, 40)
    reactions = feedback.join_feedback(shown.lazy(), done.lazy()).sort("ts")
    assert reactions.height == 100
    assert reactions["click"].to_list() == [True] * 40 + [False] * 60
    assert reactions["order"].to_list() == reactions["click"].to_list()
    assert not reactions["cart"].any()
    clicks = feedback.clicks_by_variant(reactions, START)
    assert [row[:3] for row in clicks] == [(1, "champion", 50), (2, "challenger", 50)]
    assert clicks[0][3].mean == pytest.approx(0.4)
    assert clicks[0][3].low < 0.4 < clicks[0][3].high


def test_of_many_answers_those_of_whole_users_are_joined(monkeypatch):
    monkeypatch.setattr(feedback, "SAMPLE", 1_000)
    shown, done = answers(4_000, 400)
    reactions = feedback.join_feedback(shown.lazy(), done.lazy())
    assert 700 < reactions.height < 1_300
    assert reactions.group_by("user").len()["len"].unique().to_list() == [2]


def test_of_many_answers_without_a_user_about_as_many_are_joined(monkeypatch):
    monkeypatch.setattr(feedback, "SAMPLE", 1_000)
    shown, done = answers(4_000, 2_000)
    anonymous = shown.with_columns(user=pl.lit(""))
    reactions = feedback.join_feedback(anonymous.lazy(), done.lazy())
    assert 700 < reactions.height < 1_300
    measured = feedback.clicks_per_answer(reactions, 1, START)
    assert measured["clicks"].value == pytest.approx(0.5, abs=0.1)
    (first, _) = feedback.clicks_by_variant(reactions, START)
    assert 0.3 < first[3].low < first[3].high < 0.7, "each answer is a user of its own"
