"""A source that has stopped is reported once, until it delivers again or was given up."""

import pytest

from kreislauf.clock import DAY_MS, HOUR_MS
from kreislauf.lake import journal
from kreislauf.lake.clocks import Clock, Source
from kreislauf.monitoring import alarms, policy, stops
from kreislauf.monitoring.finding import Finding

NOW = 1_700_000_000_000
FINDING = Finding(
    model="tiny", version=3, start=1, end=NOW, groups=9, verdict="stable", reason="Calm."
)


@pytest.fixture(autouse=True)
def emitted(monkeypatch) -> list[str]:
    """Sources of which events are emitted."""
    names: list[str] = []
    monkeypatch.setattr(
        stops.events, "emit_table_event", lambda *_, source, **__: names.append(source)
    )
    return names


def source(name: str, behind: float, lag: float | None = 0.0, silent: float = 0.0) -> Source:
    """A source with times in days."""
    newest = NOW - int(behind * DAY_MS)
    length = None if lag is None else int(lag * DAY_MS)
    loaded = NOW - int(silent * DAY_MS)
    clock = Clock(newest, loaded, groups=5, lag=length, pause=HOUR_MS)
    return Source(name, clock, NOW - newest, NOW - loaded)


def rows() -> list[tuple]:
    return journal.read("alarms").sort("end").select("source", "start", "end", "action").rows()


def test_each_stop_is_an_alarm_and_an_event_once(emitted):
    web = source("web", 0)
    late = source("app", 2)
    for _ in range(2):
        stops.record(FINDING, [web, late], "orders")
    begins = NOW - 2 * DAY_MS
    assert rows() == [("app", begins, NOW, stops.REPORTED)]
    later = source("app", 1.5)
    stops.record(FINDING, [web, later], "orders")
    assert emitted == ["app"], "it comes back, and is still late"
    for _ in range(2):
        stops.record(FINDING, [web, source("app", 0.5)], "orders")
    over = ("app", begins, NOW, stops.DELIVERS_AGAIN)
    assert sorted(rows()) == [over, ("app", begins, NOW, stops.REPORTED)]
    stops.record(FINDING, [web, source("app", 3)], "orders")
    assert emitted == ["app", "app"]
    assert len(rows()) == 3


def test_one_that_was_given_up_is_named_no_more_and_is_not_over(emitted):
    stops.record(FINDING, [source("web", 0), source("app", 27)], "orders")
    given_up = [source("web", 0), source("app", 29)]
    stops.record(FINDING, given_up, "orders")
    assert [row[3] for row in rows()] == [stops.REPORTED]
    assert stops.sentences(given_up) == []
    stops.record(FINDING, [source("web", 0), source("old", 29)], "orders")
    assert "old" not in emitted


def test_the_sentence_says_what_is_late_and_what_is_silent():
    (late,) = stops.sentences([source("s3://shop/app", 3.5, lag=1)])
    assert late.startswith(
        "The source s3://shop/app has stopped: its newest event is of 2023-11-11 10:13 (UTC), 3 d "
        "12 h behind the furthest source, and usually it delivers after 1 d at most."
    )
    (silent,) = stops.sentences([source("kafka://clicks", 0, lag=None, silent=1.25)])
    assert silent.startswith(
        "The source kafka://clicks has stopped: its newest event is of 2023-11-14 22:13 (UTC), "
        "nothing has been loaded of it for 1 d 6 h, and usually something is after 1 h at most."
    )
    assert stops.sentences([source("web", 0), source("dump", 99, lag=None)]) == []


def test_the_monitors_own_alarms_stand_beside_them():
    stops.record(FINDING, [source("web", 0), source("app", 2)], "orders")
    drift = FINDING.model_copy(update={"verdict": "concept drift"})
    alarms.record(drift, policy.Action(sentence=policy.ASKED, event="drift"))
    stops.record(FINDING, [source("web", 0), source("app", 2)], "orders")
    stored = journal.read("alarms").sort("verdict")
    assert stored.select("verdict", "source").rows() == [
        ("concept drift", None),
        (stops.SOURCE_STOPPED, "app"),
    ]
    alarms.resolve("tiny", NOW, "trained")
    assert journal.read("alarms").filter(action="trained")["verdict"].to_list() == ["concept drift"]
