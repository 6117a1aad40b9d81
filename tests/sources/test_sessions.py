"""Sessions that are made of users and a gap of inactivity, whatever the cut of the files."""

import json
import random
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest

from flows.replay import replay
from flows.stream import stream
from kreislauf import lake, sources
from kreislauf.lake import delta, landing, sessions, staging
from kreislauf.settings import settings
from models import mapping as mappings
from models import session_names
from models.fields import LONGEST_ID
from models.session_recommender.schema import EVENTS, TEXT_EVENTS
from tests.stream_tools import broker, kafka

__all__ = ["broker", "kafka"]
T0 = 1_700_000_000_000
MINUTE = 60_000
GAP = 30 * MINUTE
DAY = 24 * 60 * MINUTE
MAPPING = """
model: session_recommender_text
columns:
  session: {user: visitor, gap_minutes: 30}
  aid: item
  ts: {from: time, unit: ms}
  type: {constant: clicks}
"""
Event = tuple[str, str, int]
"""User, article, ms after T0."""


@pytest.fixture
def shop(tmp_path: Path) -> "Shop":
    return Shop(tmp_path)


class Shop:
    """A shop whose files have users and no sessions."""

    def __init__(self, folder: Path) -> None:
        self.mapping = folder / "shop.yaml"
        self.mapping.write_text(MAPPING)
        self._folder = folder
        self._files = 0

    def load(self, *events: Event) -> lake.Accounts:
        """Load a file of these events, in this order."""
        self._files += 1
        path = self._folder / f"{self._files}.csv"
        rows = [f"{user},{item},{T0 + time}\n" for user, item, time in events]
        path.write_text("visitor,item,time\n" + "".join(rows))
        mapping = mappings.read(str(self.mapping), TEXT_EVENTS)
        return lake.load_file(TEXT_EVENTS, sources.open_file(str(path), TEXT_EVENTS, mapping))


def start(user: str, time: int) -> str:
    """What a session is called."""
    began = datetime.fromtimestamp((T0 + time) / 1000, UTC)
    return f"{user}/{began:%Y-%m-%dT%H:%M:%S}.{(T0 + time) % 1000:03}Z"


def stored() -> dict[Event, str]:
    """Session of each event in the table; no event is there twice."""
    rows = lake.read(TEXT_EVENTS).select("session", "aid", "ts").rows()
    events = {(name.rsplit("/", 1)[0], aid, ts - T0): name for name, aid, ts in rows}
    assert len(events) == len(rows)
    return events


def walked(events: Iterable[Event]) -> dict[Event, str]:
    """Session of each event, when all come in order of time."""
    sessions_of = {}
    last: dict[str, int] = {}
    name: dict[str, str] = {}
    for user, item, time in sorted(events, key=lambda event: event[2]):
        if user not in last or time - last[user] > GAP:
            name[user] = start(user, time)
        last[user] = time
        sessions_of[user, item, time] = name[user]
    return sessions_of


def joined(present: dict[Event, str], load: Iterable[Event]) -> dict[Event, str]:
    """Session of each event after a load, by the rule as docs/data.md has it."""
    load = set(load)
    sessions_of = dict(present)
    for user, item, time in load - set(present):
        own = {at for who, _, at in {*present, *load} if who == user}
        stored_at = {at: name for (who, _, at), name in present.items() if who == user}
        run = reachable(own, time)
        before = [at for at in run if at <= time and at in stored_at]
        after = [at for at in run if at > time and at in stored_at]
        if before:
            sessions_of[user, item, time] = stored_at[max(before)]
        elif after:
            sessions_of[user, item, time] = stored_at[min(after)]
        else:
            sessions_of[user, item, time] = start(user, min(run))
    return sessions_of


def reachable(times: set[int], time: int) -> set[int]:
    """Times that are reached from one, in steps of at most a gap."""
    run = {time}
    while True:
        more = {at for at in times if any(abs(at - member) <= GAP for member in run)}
        if more == run:
            return run
        run = more


def random_events(seed: int, count: int) -> list[Event]:
    """Events of few users with gaps about as long as the limit, some twice and some at once, over
    midnight."""
    rng = random.Random(seed)
    times = dict.fromkeys(["ada", "Bo/b", "ç", "d" * session_names.LONGEST_USER], 0)
    events = []
    for _ in range(count):
        user = rng.choice(list(times))
        steps = [0, 1, GAP // 2, GAP - 1, GAP, GAP + 1, 3 * GAP, rng.randrange(DAY)]
        times[user] += rng.choice(steps)
        events.append((user, str(rng.randrange(3)), times[user]))
    return events + rng.sample(events, count // 5)


def cut(rng: random.Random, events: list[Event], parts: int) -> list[list[Event]]:
    """Events in consecutive parts."""
    places = sorted(rng.sample(range(1, len(events)), parts - 1))
    return [events[a:b] for a, b in pairwise([0, *places, len(events)])]


@pytest.fixture(params=["large buckets", "small buckets"])
def buckets(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loads in one bucket, and in many with few rows of the table at a time."""
    if request.param == "small buckets":
        monkeypatch.setattr(staging, "BUCKET_ROWS", 20)
        monkeypatch.setattr(sessions, "STORED_ROWS", 7)
        monkeypatch.setattr(sessions, "PLACES", 64)


def test_a_gap_of_exactly_its_length_is_one_session_and_a_millisecond_more_is_two(shop):
    accounts = shop.load(
        ("ada", "1", 0),
        ("bob", "1", GAP // 2),
        ("ada", "2", GAP),
        ("bob", "2", GAP + GAP // 2 + 1),
        ("ada", "3", 2 * GAP + 1),
    )
    assert (accounts.table, accounts.rows_in, accounts.rows_kept) == ("text_events", 5, 5)
    assert stored() == {
        ("ada", "1", 0): "ada/2023-11-14T22:13:20.000Z",
        ("ada", "2", GAP): "ada/2023-11-14T22:13:20.000Z",
        ("ada", "3", 2 * GAP + 1): "ada/2023-11-14T23:13:20.001Z",
        ("bob", "1", GAP // 2): "bob/2023-11-14T22:28:20.000Z",
        ("bob", "2", GAP + GAP // 2 + 1): "bob/2023-11-14T22:58:20.001Z",
    }


@pytest.mark.usefixtures("buckets")
@pytest.mark.parametrize("seed", range(4))
def test_files_whole_sessions_of_time_make_the_same_sessions_whatever_their_cut(shop, seed):
    rng = random.Random(seed)
    events = random_events(seed, 150)
    whole_sessions = sorted(events, key=lambda event: event[2])
    for part in cut(rng, whole_sessions, 6):
        accounts = shop.load(*rng.sample(part, len(part)))
        assert accounts.rows_in == len(part) == accounts.rows_kept + accounts.rows_duplicate
    expected = walked(events)
    assert stored() == expected
    before = lake.read(TEXT_EVENTS)
    shuffled = rng.sample(events, len(events))
    kept = [shop.load(*part).rows_kept for part in cut(rng, shuffled, 4)]
    assert kept == [0, 0, 0, 0], "the same events in other files change nothing"
    assert lake.read(TEXT_EVENTS).equals(before)


@pytest.mark.usefixtures("buckets")
@pytest.mark.parametrize("seed", range(4))
def test_files_in_any_order_have_the_same_rows_in_sessions_that_are_only_ever_cut_finer(shop, seed):
    rng = random.Random(seed)
    events = random_events(seed, 120)
    present: dict[Event, str] = {}
    for part in cut(rng, rng.sample(events, len(events)), 6):
        shop.load(*part)
        present = joined(present, part)
        assert stored() == present
    whole_sessions = walked(events)
    assert set(present) == set(events)
    whole = {(present[event], whole_sessions[event]) for event in events}
    assert len(whole) == len({name for name, _ in whole}) >= len({name for _, name in whole})
    for name in {name for name, _ in whole}:
        times = sorted(event[2] for event in set(events) if present[event] == name)
        assert all(later - earlier <= GAP for earlier, later in pairwise(times))
        assert name in {start(event[0], event[2]) for event in events if present[event] == name}


@pytest.mark.parametrize(
    ("time", "session"),
    [
        (-GAP, 0),
        (-GAP - 1, -GAP - 1),
        (5 * MINUTE, 0),
        (10 * MINUTE + GAP, 0),
        (10 * MINUTE + GAP + 1, 60 * MINUTE),
        (60 * MINUTE, 60 * MINUTE),
        (70 * MINUTE + GAP + 1, 70 * MINUTE + GAP + 1),
    ],
)
def test_a_late_event_joins_the_session_that_it_reaches(shop, time, session):
    shop.load(*(("ada", "1", minute * MINUTE) for minute in (0, 10, 60, 70)))
    before = stored()
    shop.load(("ada", "x", time), ("bob", "x", time))
    after = stored()
    assert after.pop(("ada", "x", time)) == start("ada", session)
    assert after.pop(("bob", "x", time)) == start("bob", time)
    assert after == before


def test_late_events_that_bridge_two_sessions_join_the_earlier_and_both_keep_their_names(shop):
    shop.load(("ada", "1", 0), ("ada", "2", 80 * MINUTE))
    shop.load(("ada", "3", 25 * MINUTE), ("ada", "4", 52 * MINUTE), ("ada", "5", 90 * MINUTE))
    names = {item: name for (_, item, _), name in stored().items()}
    first, second = start("ada", 0), start("ada", 80 * MINUTE)
    assert names == {"1": first, "3": first, "4": first, "2": second, "5": second}


def test_sessions_that_are_given_are_nobodys(shop, tmp_path):
    given = tmp_path / "given.csv"
    given.write_text(f"session,aid,ts,type\nada,1,{T0},clicks\nada/7,1,{T0},clicks\n")
    lake.load_file(TEXT_EVENTS, sources.open_file(str(given), TEXT_EVENTS))
    shop.load(("ada", "1", 0))
    names = sorted(lake.read(TEXT_EVENTS)["session"])
    assert names == ["ada", "ada/2023-11-14T22:13:20.000Z", "ada/7"]


def test_another_gap_is_for_new_events_and_doubles_none(shop):
    events = [("ada", "1", 0), ("ada", "2", 20 * MINUTE), ("ada", "3", 60 * MINUTE)]
    shop.load(*events)
    before = stored()
    for minutes in (10, 60):
        shop.mapping.write_text(MAPPING.replace("30", str(minutes)))
        assert shop.load(*events).rows_kept == 0
    assert stored() == before
    shop.load(("ada", "4", 110 * MINUTE))
    assert stored()["ada", "4", 110 * MINUTE] == start("ada", 60 * MINUTE)


def test_a_load_that_lost_a_race_makes_its_sessions_anew_only_if_it_has_to(shop, monkeypatch):
    put_rows = landing.Landing.put_rows
    made = []
    with_sessions = sessions.with_sessions
    rivals = [[("bob", "9", 60 * DAY)], [("ada", "9", -MINUTE)], []]

    def put_rows_slowly(self, table, stage):
        put_rows(self, table, stage)
        made.append("landing")
        if rivals and (events := rivals.pop(0)):
            with monkeypatch.context() as calm:
                calm.setattr(landing.Landing, "put_rows", put_rows)
                shop.load(*events)
                made.append("rival")

    def count(*arguments):
        made.append("sessions")
        return with_sessions(*arguments)

    monkeypatch.setattr(landing.Landing, "put_rows", put_rows_slowly)
    monkeypatch.setattr(sessions, "with_sessions", count)
    shop.load(("ada", "1", 0), ("ada", "2", MINUTE))
    rival = ["sessions", "rival"]
    far = ["sessions", "landing", *rival]
    near = ["landing", *rival]
    assert made == [*far, *near, "sessions", "landing"]
    assert stored() == {
        ("bob", "9", 60 * DAY): start("bob", 60 * DAY),
        ("ada", "9", -MINUTE): start("ada", -MINUTE),
        ("ada", "1", 0): start("ada", -MINUTE),
        ("ada", "2", MINUTE): start("ada", -MINUTE),
    }
    folder = Path(settings().lake, TEXT_EVENTS.name)
    files = delta.files(delta.at(TEXT_EVENTS.name, None))["path"]
    assert {str(path.relative_to(folder)) for path in folder.glob("*/*.parquet")} == set(files)


@pytest.mark.usefixtures("s3_lake")
def test_sessions_go_on_in_the_next_file_on_s3(shop):
    shop.load(("ada", "1", 0))
    shop.load(("ada", "2", GAP), ("ada", "3", -GAP), ("ada", "4", 3 * GAP))
    assert sorted(stored().values()) == [start("ada", 0)] * 3 + [start("ada", 3 * GAP)]


@pytest.mark.usefixtures("prefect_harness")
def test_sessions_go_on_in_the_next_batch_of_a_stream(shop, kafka):
    topic = kafka.topic(1)
    events = [("ada", "1", 0), ("bob", "1", 5), ("ada", "2", GAP), ("ada", "3", 3 * GAP)]
    messages = [{"visitor": u, "item": i, "time": T0 + t} for u, i, t in [*events, events[0]]]
    kafka.send(topic, [json.dumps(message).encode() for message in messages], partition=0)
    report = stream(topic, until_end=True, batch_messages=1, mapping=str(shop.mapping))
    assert (report.table, report.commits, report.rows_kept, report.rows_duplicate) == (
        "text_events",
        5,
        4,
        1,
    )
    assert stored() == walked(events)


@pytest.mark.usefixtures("prefect_harness")
def test_rows_from_the_quarantine_join_their_sessions(shop):
    right = shop.mapping.read_text()
    shop.mapping.write_text(right.replace("{constant: clicks}", "{from: item, values: {a: carts}}"))
    events = [("ada", "a", 0), ("ada", "b", -GAP), ("", "a", 0), ("ada", "b", 2 * GAP)]
    accounts = shop.load(*events)
    assert (accounts.lines_in, accounts.lines_rejected, accounts.rows_kept) == (4, 3, 1)
    assert lake.rejects(TEXT_EVENTS)["rule"][1] == "`visitor` has no value"
    shop.mapping.write_text(right)
    report = replay(mapping=str(shop.mapping))
    assert (report.lines_in, report.lines_rejected, report.rows_kept) == (3, 1, 2)
    assert sorted(stored().values()) == [start("ada", 0)] * 2 + [start("ada", 2 * GAP)]


def test_a_user_is_as_long_as_the_name_of_a_session_allows(shop):
    assert len(start("d" * session_names.LONGEST_USER, 0)) == LONGEST_ID
    accounts = shop.load(("d" * 75, "1", 0), ("e" * 76, "1", 0))
    assert (accounts.rows_kept, accounts.lines_rejected) == (1, 1)
    (reject,) = lake.rejects(TEXT_EVENTS).rows(named=True)
    rule = f"Expected `visitor` to be text of at most 75 characters, got '{'e' * 40}'"
    assert (reject["reason"], reject["rule"]) == ("out-of-range", rule)


def test_a_load_without_a_good_row_is_accounted_for(shop):
    shop.load(("ada", "1", 0))
    accounts = shop.load(("", "1", 0))
    assert (accounts.lines_rejected, accounts.rows_kept) == (1, 0)
    assert list(stored().values()) == [start("ada", 0)]


@pytest.mark.parametrize(
    ("table", "old", "new", "message"),
    [
        (EVENTS, "", "", "text names, which the table events does not take: name `model: sess"),
        (replace(TEXT_EVENTS, lasting=True), "", "", "only sessions are made by a gap"),
        (TEXT_EVENTS, "aid: item", "aid: {user: u, gap_minutes: 1}", "`columns.aid` cannot have"),
        (TEXT_EVENTS, ", gap_minutes: 30", "", "`user` and `gap_minutes` go together"),
        (TEXT_EVENTS, "user: visitor, ", "from: v, ", "`user` and `gap_minutes` go together"),
        (TEXT_EVENTS, "visitor,", "visitor, from: v,", "say either `from`"),
        (TEXT_EVENTS, "minutes: 30", "minutes: 0", "greater than 0"),
        (TEXT_EVENTS, "minutes: 30", "minutes: 20000", "less than or equal to 10080"),
    ],
)
def test_a_mapping_that_makes_no_sessions_is_refused(tmp_path, table, old, new, message):
    path = tmp_path / "shop.yaml"
    path.write_text(MAPPING.replace(old, new, 1))
    with pytest.raises(mappings.MappingError, match=message):
        mappings.read(str(path), table)


def test_a_word_that_a_mapping_does_not_use_does_not_make_it_another_one():
    short = mappings.Mapping.model_validate({"columns": {"session": {"from": "s"}}})
    column = {"from": "s", "user": None}
    long = mappings.Mapping.model_validate({"columns": {"session": column}, "ignored": []})
    assert short.digest == long.digest
