"""Reading a topic, on a real broker; where Tansu cannot do something (delete old messages), on
librdkafka's mock."""

import json
import time

import pytest
from confluent_kafka import Consumer, TopicPartition

from deployments import processes
from kreislauf.sources import kafka as kafka_reader
from kreislauf.sources import kafka_topic
from kreislauf.sources.kafka import Reader
from kreislauf.sources.kafka_topic import KafkaUnreachable, MessagesLost, TopicClient, TopicError
from tests.stream_tools import broker, described, forgetful, kafka, start_broker
from tests.waiting import until

__all__ = ["broker", "forgetful", "kafka"]


class Table:
    """Stands in for the lake: remembers what was read, and how far."""

    def __init__(self) -> None:
        self.next: dict[str, int] = {}
        self.messages: list[tuple[str, int, bytes]] = []

    def stored(self, ids) -> dict[str, int | None]:
        return {i: self.next.get(i) for i in ids}

    def reader(self, topic: str, **options) -> Reader:
        return Reader(topic, "kreislauf-test", self.stored, **options)

    def land(self, reader: Reader, batch: kafka_reader.Batch) -> None:
        for name, (before, after) in batch.progress.items():
            assert self.next.get(name) == before
            self.next[name] = after
        self.messages += [
            (raw.source, int(number), raw.line(i))
            for raw in batch.raws
            for i, number in enumerate(raw.numbers)
        ]
        reader.confirm(batch)

    def drain(self, topic: str, messages: int = 10_000, **options) -> "Table":
        with self.reader(topic, **options) as reader:
            while not reader.reached_end:
                self.land(reader, reader.read_batch(messages, 10, lambda: reader.reached_end))
        return self


def test_every_message_comes_once_in_the_order_of_its_partition(kafka):
    topic = kafka.topic(3)
    kafka.send(topic, (b"%d" % i for i in range(3000)))
    table = Table().drain(topic, messages=700)
    for p in range(3):
        assert [s[1:] for s in table.messages if s[0] == f"kafka://{topic}/{p}"] == [
            (i, b"%d" % (3 * i + p)) for i in range(1000)
        ]
    assert sorted(table.next.values()) == [1000] * 3
    kafka.send(topic, [b"more"] * 3)
    table.drain(topic)
    assert [s[1:] for s in table.messages[3000:]] == [(1000, b"more")] * 3


def test_a_batch_ends_with_its_messages_its_time_or_the_stop(kafka):
    topic = kafka.topic(3)
    kafka.send(topic, [b"x"] * 30)
    with Table().reader(topic) as reader:
        assert sum(map(len, reader.read_batch(7, 10).raws)) == 7
        assert sum(map(len, reader.read_batch(23, 10).raws)) == 23
        start = time.monotonic()
        assert reader.read_batch(100, 0.5).raws == []
        assert 0.4 < time.monotonic() - start < 5
        for _ in range(20):
            if not reader.reached_end:
                reader.read_batch(100, 0.5)
        assert reader.reached_end
        assert reader.lag == 0
        assert reader.read_batch(100, 60, lambda: True).raws == []


def test_a_batch_is_bounded_in_bytes(kafka, monkeypatch):
    monkeypatch.setattr(kafka_reader, "BATCH_BYTES", 1 << 20)
    monkeypatch.setattr(kafka_reader, "POLL_MESSAGES", 10)
    topic = kafka.topic(1)
    kafka.send(topic, [b"x" * 10_000] * 300, partition=0)
    with Table().reader(topic) as reader:
        assert len(reader.read_batch(1000, 10).raws[0].data) < 1_200_000
    assert len(Table().drain(topic).messages) == 300


def test_tombstones_empty_values_and_any_bytes_come_as_they_are(kafka):
    topic = kafka.topic(1)
    values = [None, b"", b"\n", b'{"a":\n1}\n', b"\xff\x00\r\n", b" "]
    kafka.send(topic, values, partition=0)
    assert [s[2] for s in Table().drain(topic).messages] == [v or b"" for v in values]


def test_a_batch_that_was_not_stored_is_read_again(kafka):
    topic = kafka.topic(1)
    kafka.send(topic, [b"a", b"b", b"c"], partition=0)
    table = Table()
    with table.reader(topic) as reader:
        reader.read_batch(2, 10)
    assert [s[2] for s in table.drain(topic).messages] == [b"a", b"b", b"c"]


def test_kafka_s_tools_see_the_lag_and_nobody_reads_it_back(kafka):
    topic = kafka.topic(1)
    kafka.send(topic, [b"x"] * 5, partition=0)
    Table().drain(topic)
    tool = Consumer({"bootstrap.servers": kafka.servers, "group.id": "kreislauf-test"})
    until(
        lambda: tool.committed([TopicPartition(topic, 0)], timeout=5)[0].offset == 5,
        10,
        "the group's offset",
    )
    tool.close()
    assert len(Table().drain(topic).messages) == 5


def test_a_topic_that_was_created_again_is_read_from_its_start(kafka):
    topic = kafka.topic(1)
    kafka.send(topic, [b"old"] * 5, partition=0)
    table = Table().drain(topic)
    kafka.drop(topic)
    kafka.topic(1, name=topic)
    kafka.send(topic, [b"new"] * 9, partition=0)
    assert [s[2] for s in table.drain(topic).messages] == [b"old"] * 5 + [b"new"] * 9
    assert len(table.next) == 2


def test_messages_of_a_topic_that_is_created_again_meanwhile_are_dropped_and_read_anew(
    kafka, monkeypatch
):
    """librdkafka 2.16 crashes when Tansu drops a topic under it, so that here only the look at the
    topic is faked."""
    topic, table = kafka.topic(1), Table()
    kafka.send(topic, [b"x"] * 5, partition=0)
    with table.reader(topic) as reader:
        monkeypatch.setattr(TopicClient, "describe", lambda _: ("another", [0]))
        assert reader.read_batch(5, 10).raws == []
        table.land(reader, reader.read_batch(5, 10))
    assert table.next == {f"kafka/{topic}/another/0": 5}
    assert len(table.messages) == 5


def test_a_partition_that_the_topic_gains_is_read_from_its_start(kafka, monkeypatch):
    """Tansu cannot add partitions, so that here the reader does not see the third one at first."""
    topic, table = kafka.topic(3), Table()
    kafka.send(topic, [b"x"] * 30)
    describe, shown = TopicClient.describe, 2

    def describe_fewer(client):
        topic_id, partitions = describe(client)
        return topic_id, partitions[:shown]

    monkeypatch.setattr(TopicClient, "describe", describe_fewer)
    with table.reader(topic) as reader:
        table.land(reader, reader.read_batch(15, 10))
        table.land(reader, reader.read_batch(100, 1))
        assert len(table.messages) == 20
        shown = 3
        table.land(reader, reader.read_batch(100, 0.3))
        kafka.send(topic, [b"y"] * 3)
        table.land(reader, reader.read_batch(13, 10))
    assert len(table.messages) == len(set(table.messages)) == 33
    assert sorted(table.next.values()) == [11, 11, 11]


def test_unknown_topic_no_kafka_and_wrong_options_say_so(kafka, monkeypatch):
    with (
        pytest.raises(TopicError, match=rf"no topic 'nowhere' in Kafka at {kafka.servers}"),
        Table().reader("nowhere"),
    ):
        pass
    monkeypatch.setenv("KREISLAUF_KAFKA_OPTIONS", '{"security.protocoll": "SSL"}')
    with pytest.raises(
        TopicError, match=r'KREISLAUF_KAFKA_OPTIONS is wrong.*property: "security.protocoll"'
    ):
        Table().reader("t")
    monkeypatch.delenv("KREISLAUF_KAFKA")
    with pytest.raises(TopicError, match="set KREISLAUF_KAFKA"):
        Table().reader("t")


def test_options_may_be_numbers_and_booleans_as_json_has_them(kafka, monkeypatch):
    options = {"socket.keepalive.enable": True, "socket.timeout.ms": 6000}
    monkeypatch.setenv("KREISLAUF_KAFKA_OPTIONS", json.dumps(options))
    topic, table = kafka.topic(1), Table()
    kafka.send(topic, [b"x"])
    with table.reader(topic) as reader:
        table.land(reader, reader.read_batch(1, 10))
    assert len(table.messages) == 1


def test_options_reach_kafka_and_the_error_says_what_the_network_said(kafka, monkeypatch):
    monkeypatch.setattr(kafka_topic, "ANSWER_SECONDS", 3)
    topic = kafka.topic(1)
    options = {
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "PLAIN",
        "sasl.username": "me",
        "sasl.password": "wrong",
    }
    monkeypatch.setenv("KREISLAUF_KAFKA_OPTIONS", json.dumps(options))
    with pytest.raises(KafkaUnreachable, match="SASL"), Table().reader(topic):
        pass


def test_a_kafka_that_does_not_answer_is_told_within_seconds(tmp_path, monkeypatch):
    monkeypatch.setattr(kafka_topic, "ANSWER_SECONDS", 2)
    port = processes.free_port()
    monkeypatch.setenv("KREISLAUF_KAFKA", f"127.0.0.1:{port}")
    start = time.monotonic()
    with (
        pytest.raises(KafkaUnreachable, match=r"does not answer \(.*Connection refused"),
        Table().reader("t"),
    ):
        pass
    assert time.monotonic() - start < 5
    broker, record = start_broker(tmp_path, port)
    topic = broker.topic(1)
    with Table().reader(topic) as reader:
        processes.stop(record, 0)
        with pytest.raises(KafkaUnreachable, match="does not answer"):
            reader.read_batch(1, 0.5)


@pytest.fixture
def gap(forgetful, monkeypatch) -> tuple[str, Table, int]:
    """A topic that has lost messages after offset 10, up to where the table has read; and the first
    that is left."""
    described(forgetful, monkeypatch)
    topic, table = f"gap-{time.monotonic_ns()}", Table()
    forgetful.send(topic, (b"%d" % i + b"x" * 1000 for i in range(8000)), partition=0)
    table.next = {f"kafka/{topic}/id/0": 10}
    tool = Consumer({"bootstrap.servers": forgetful.servers, "group.id": "tool"})
    low, high = tool.get_watermark_offsets(TopicPartition(topic, 0), timeout=10)
    tool.close()
    assert 10 < low < high == 8000
    return topic, table, low


def test_messages_that_retention_deleted_unread_stop_the_reader_and_are_counted(gap):
    topic, table, low = gap
    lost = (
        rf"{low - 10} messages of partition 0 of topic {topic} were deleted"
        rf".*offsets 10 to {low - 1}.*skip_lost=True"
    )
    with pytest.raises(MessagesLost, match=lost), table.reader(topic):
        pass
    with table.reader(topic, skip_lost=True) as reader:
        while len(table.messages) < 8000 - low:
            table.land(reader, reader.read_batch(10_000, 5, lambda: reader.reached_end))
        assert reader.lost_messages == low - 10
    assert [s[1] for s in table.messages] == list(range(low, 8000))


def test_retention_that_overtakes_a_running_reader_is_noticed(gap, forgetful):
    topic, table, low = gap
    table.next[f"kafka/{topic}/id/0"] = low
    with table.reader(topic) as reader:
        table.land(reader, reader.read_batch(100, 10))
        reader._next[0] = 50  # as if it had been that slow
        reader._assign()
        while not reader._refused:
            assert reader.read_batch(1000, 1).raws == []
        with pytest.raises(MessagesLost, match=f"{low - 50} messages"):
            reader.read_batch(1000, 1)


def test_a_topic_that_ends_before_what_was_read_is_refused(gap):
    topic, table, low = gap
    table.next[f"kafka/{topic}/id/0"] = 100_000
    ends = pytest.raises(MessagesLost, match=r"ends at offset 8000, but has been read up to 100000")
    with ends, table.reader(topic) as reader:
        while True:
            reader.read_batch(10, 1)
    with table.reader(topic, skip_lost=True) as reader:
        for _ in range(3):
            table.land(reader, reader.read_batch(10_000, 1))
    assert [s[1] for s in table.messages] == list(range(low, 8000))
