"""Exactly once, shown by force: a process that lands a topic is killed again and again; nothing is
lost or doubled."""

import json
import random
import threading
from collections import Counter

import pytest
from confluent_kafka import Message, Producer

from kreislauf import lake
from models.session_recommender.schema import EVENTS
from tasks.stream import land_topic
from tests.long.lander import kill
from tests.stream_tools import T0, broker, kafka, session

pytestmark = pytest.mark.slow

__all__ = ["broker", "kafka"]

DAY = 86_400_000
# Before and after (!) each step of the first landings; `commit1` is the rows' commit, `commit2`
# that of their rejects.
BOUNDARIES = [
    "read1",
    "read1!",
    "rejects1!",
    "rejects2",
    "spool1",
    "spool1!",
    "put1",
    "put1!",
    "put2!",
    "commit1",
    "commit1!",
    "rejects3",
    "commit2",
    "commit2!",
    "rejects3!",
    "landed1",
    "landed1!",
    "read2!",
]


class Shop(threading.Thread):
    """Sends messages at a steady pace until it is told to stop, and remembers what went where."""

    def __init__(self, servers: str, topic: str, seed: int) -> None:
        super().__init__(daemon=True)
        self.producer = Producer({"bootstrap.servers": servers, "log_level": 0, "linger.ms": 5})
        self.topic = topic
        self.random = random.Random(seed)
        self.done = threading.Event()
        self.sent: dict[tuple[str, int], tuple[str, bytes]] = {}
        """Kind of message and its bytes, by source and offset."""

    def run(self) -> None:
        number = 0
        while not self.done.is_set():
            for _ in range(8):
                self.send(*self.message(number := number + 1))
            self.producer.poll(0)
            self.done.wait(0.01)
        self.producer.flush()

    def message(self, number: int) -> tuple[str, bytes | None]:
        """Mostly a session of its own; a day has 500 sessions, and every 40th comes three days
        late."""
        kind = self.random.choices(["valid", "again", "bad", "tombstone"], [75, 10, 13, 2])[0]
        if kind == "tombstone":
            return kind, None
        if kind == "bad":
            return kind, b'{"session": %d, "events": [\n"\xff' % number + self.random.randbytes(20)
        n = self.random.randint(1, number) if kind == "again" else number
        return kind, session(n, start=T0 + DAY * (n // 500 - 3 * (n % 40 == 0)))

    def send(self, kind: str, value: bytes | None) -> None:
        def delivered(error: object, message: Message) -> None:
            assert error is None
            self.sent[f"kafka://{self.topic}/{message.partition()}", message.offset()] = (
                kind,
                value or b"",
            )

        self.producer.produce(
            self.topic, value, partition=self.random.randrange(3), on_delivery=delivered
        )

    def stop(self) -> None:
        self.done.set()
        self.join()


def check(shop: Shop, topic: str) -> None:
    """Drain the topic; everything that was sent is where it belongs, exactly once, and all accounts
    add up."""
    for _ in land_topic(
        EVENTS,
        topic,
        10_000,
        5,
        1.0,
        until_end=True,
        skip_lost=False,
        mapping=None,
        is_over=lambda: False,
    ):
        pass
    kinds = Counter(kind for kind, _ in shop.sent.values())
    assert min(kinds[kind] for kind in ("valid", "again", "bad", "tombstone")) > 0
    lines = [json.loads(value) for kind, value in shop.sent.values() if kind in ("valid", "again")]
    wanted = {
        (line["session"], e["aid"], e["ts"], e["type"]) for line in lines for e in line["events"]
    }
    stored = lake.read(EVENTS).rows()
    assert len(stored) == len(set(stored)) == len(wanted)
    assert set(stored) == wanted
    bad = {place: value for place, (kind, value) in shop.sent.items() if kind == "bad"}
    rejected = lake.rejects(EVENTS).select("source", "line", "raw").rows()
    assert len(rejected) == len(bad)
    assert {(source, line): raw for source, line, raw in rejected} == bad
    total = lake.total(lake.history(EVENTS))
    assert (total.lines_in, total.lines_blank) == (len(shop.sent), kinds["tombstone"])
    assert (total.lines_rejected, total.rows_kept) == (len(bad), len(wanted))
    assert total.rows_duplicate == 2 * len(lines) - len(wanted)


@pytest.mark.parametrize("kills", [12, pytest.param(60, marks=pytest.mark.long)])
@pytest.mark.parametrize("storage", ["disk", "s3"], indirect=True)
def test_random_kills_lose_and_double_nothing(kafka, storage, kills, tmp_path):
    topic = kafka.topic(3)
    shop = Shop(kafka.servers, topic, seed=kills)
    shop.start()
    longest = 800 if storage == "disk" else 2000
    kill(topic, [str(shop.random.randint(0, longest)) for _ in range(kills)], tmp_path)
    shop.stop()
    check(shop, topic)


@pytest.mark.parametrize(
    "storage", ["disk", pytest.param("s3", marks=pytest.mark.long)], indirect=True
)
def test_a_kill_at_any_step_loses_and_doubles_nothing(kafka, storage, tmp_path):
    topic = kafka.topic(3)
    shop = Shop(kafka.servers, topic, seed=0)
    shop.start()
    kill(topic, BOUNDARIES, tmp_path)
    shop.stop()
    check(shop, topic)
