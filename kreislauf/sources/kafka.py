"""A Kafka topic in batches.

The table that the messages went to tells where to go on, never Kafka. Kafka's own group offsets are
written, so that its tools show the lag, and never read.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from confluent_kafka import KafkaError as Code
from confluent_kafka import KafkaException, Message, TopicPartition

from kreislauf.sources import kafka_topic
from kreislauf.sources.kafka_topic import KafkaUnreachable, MessagesLost, TopicClient
from models.table import RawLines

POLL_SECONDS = 0.2
"""Seconds for which the consumer waits for messages in one call."""
POLL_MESSAGES = 1000
"""Maximum messages of one call."""
BATCH_BYTES = 64 << 20
"""Bytes at which a batch ends."""

Values = dict[int, dict[int, bytes]]
"""Values of messages by partition and offset."""


@dataclass(frozen=True)
class Batch:
    """Messages of each partition in the order of their offsets, without those that Kafka lacks."""

    raws: list[RawLines]
    """One for each partition with messages; a message without a value (a tombstone) is an empty
    line."""
    progress: dict[str, tuple[int | None, int]]
    """Transaction id of each of these partitions to its next offset before and after."""


class Reader:
    """All partitions of a topic, of those too that it gains; use it in a `with`.

    A transaction id is `kafka/<topic>/<id of the topic>/<partition>`. Kafka gives a topic that is
    deleted and created again another id, and so does another cluster: such a topic is read from its
    start.
    """

    def __init__(
        self,
        topic: str,
        group: str,
        stored_offsets: Callable[[Sequence[str]], Mapping[str, int | None]],
        skip_lost: bool = False,
    ) -> None:
        """`stored_offsets` tells the next offsets by transaction id; None means the earliest.

        With `skip_lost`, messages that Kafka has deleted before they were read are left out, and
        counted in `lost_messages`. Raises TopicError if the settings are wrong.
        """
        self.topic = topic
        self.lost_messages = 0
        self._stored_offsets = stored_offsets
        self._skip_lost = skip_lost
        self._topic_id = ""
        self._before: dict[int, int | None] = {}
        self._next: dict[int, int] = {}
        self._at_end: set[int] = set()
        self._refused: list[int] = []
        self._client = TopicClient(topic)
        self._consumer = self._client.consumer(
            {
                "group.id": group,
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": "error",
                "enable.partition.eof": True,
            }
        )

    def __enter__(self) -> "Reader":
        """Raises TopicError if there is no such topic, MessagesLost, and KafkaUnreachable."""
        try:
            self._follow_topic()
        except Exception:
            self._consumer.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()

    @property
    def reached_end(self) -> bool:
        """Whether every partition has been read to its end at least once."""
        return self._at_end == set(self._next)

    @property
    def lag(self) -> int:
        """Messages that are in the topic and have not been read, as far as is known."""
        lag = 0
        for number, next_offset in self._next.items():
            offsets = self._consumer.get_watermark_offsets(self._partition(number), cached=True)
            if offsets:
                lag += max(0, offsets[1] - next_offset)
        return lag

    def read_batch(
        self, messages: int, seconds: float, stop: Callable[[], bool] = lambda: False
    ) -> Batch:
        """Read until there are `messages` of them or BATCH_BYTES, or `seconds` are over, or `stop`.

        Call `confirm` when it is stored; if it could not be stored, start again with a new Reader.
        Raises MessagesLost, KafkaUnreachable, and TopicError if the topic has been deleted.
        """
        for number in self._refused:
            self._next[number] = self._start(number, self._next[number], refused=True)
        if self._refused:
            self._assign()
        topic_id = self._topic_id
        values: Values = {}
        end = time.monotonic() + seconds
        missing = messages
        size = 0
        while missing and size < BATCH_BYTES and not self._refused:
            if stop() or time.monotonic() >= end:
                break
            for message in self._consumer.consume(min(missing, POLL_MESSAGES), POLL_SECONDS):
                if self._take(message, values):
                    missing -= 1
                    size += len(message)
        self._follow_topic()
        if self._topic_id != topic_id:
            # The topic was created again meanwhile: whose messages these are is not certain.
            values = {}
        return self._batch(values)

    def confirm(self, batch: Batch) -> None:
        """The batch is stored: go on from there, and let Kafka's tools see how far that is."""
        reached = {
            int(name.rsplit("/", 1)[1]): after for name, (_, after) in batch.progress.items()
        }
        self._before |= reached
        if reached:
            offsets = [TopicPartition(self.topic, *item) for item in reached.items()]
            self._consumer.commit(offsets=offsets, asynchronous=True)

    def _batch(self, values: Values) -> Batch:
        raws = []
        progress = {}
        for number, messages in sorted(values.items()):
            source = f"kafka://{self.topic}/{number}"
            raws.append(RawLines.of(source, [*messages.values()], [*messages]))
            progress[self._transaction_id(number)] = (self._before[number], self._next[number])
        return Batch(raws, progress)

    def _take(self, message: Message, values: Values) -> bool:
        """Put a message into `values`; whether it was one, and no sign of something else."""
        error = message.error()
        number = message.partition()
        offset = message.offset()
        if error and error.code() not in (Code._PARTITION_EOF, Code._AUTO_OFFSET_RESET):
            raise KafkaUnreachable(
                f"Kafka refuses to give messages of topic {self.topic}: {error.str()}"
            )
        assert number is not None
        assert offset is not None
        if error is None:
            values.setdefault(number, {})[offset] = message.value() or b""
            self._next[number] = offset + 1
        elif error.code() == Code._PARTITION_EOF:
            self._at_end.add(number)
        else:
            self._refused.append(number)
        return error is None

    def _follow_topic(self) -> None:
        """Ask for the topic, and read what it has gained: it may be another one by now."""
        topic_id, partitions = self._client.describe()
        if topic_id != self._topic_id:
            self._topic_id = topic_id
            self._before = {}
            self._next = {}
            self._at_end = set()
        new = [number for number in partitions if number not in self._next]
        if new:
            offsets = self._stored_offsets([self._transaction_id(number) for number in new])
            self._before |= {number: offsets[self._transaction_id(number)] for number in new}
            self._next |= {number: self._start(number, self._before[number]) for number in new}
            self._assign()

    def _start(self, number: int, wanted: int | None, refused: bool = False) -> int:
        """The offset to go on from in a partition.

        Raises MessagesLost if it is not `wanted`, unless lost messages are skipped.
        """
        seconds = kafka_topic.ANSWER_SECONDS
        try:
            # The consumer itself looks for new partitions only every few minutes.
            self._consumer.list_topics(self.topic, timeout=seconds)
            low, high = self._consumer.get_watermark_offsets(
                self._partition(number), timeout=seconds
            )
        except KafkaException as error:
            raise self._client.unreachable(error) from error
        if wanted is None:
            return low
        if low <= wanted and (wanted <= high or not refused):
            return wanted
        place = f"partition {number} of topic {self.topic}"
        if wanted < low:
            loss = (
                f"{low - wanted} messages of {place} were deleted before they were read "
                f"(offsets {wanted} to {low - 1})"
            )
        else:
            loss = (
                f"{place} ends at offset {high}, but has been read up to {wanted}: "
                "it was cut off, or replaced"
            )
        if not self._skip_lost:
            raise MessagesLost(
                f"{loss}. If they exist elsewhere, ingest them from there: rows are recognised by "
                "their key. "
                f"Then run once with skip_lost=True, which goes on at offset {low}."
            )
        self.lost_messages += max(0, low - wanted)
        return low

    def _assign(self) -> None:
        self._refused = []
        self._consumer.assign([TopicPartition(self.topic, *item) for item in self._next.items()])

    def _partition(self, number: int) -> TopicPartition:
        return TopicPartition(self.topic, number)

    def _transaction_id(self, number: int) -> str:
        return f"kafka/{self.topic}/{self._topic_id}/{number}"
