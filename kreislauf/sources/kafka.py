"""A Kafka topic in batches. Where to go on is said by the table that the messages went to, never by
Kafka.

Kafka's own group offsets are written, so that its tools show the lag, and never read.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from confluent_kafka import Consumer, KafkaException, Message, TopicCollection, TopicPartition
from confluent_kafka import KafkaError as Code
from confluent_kafka.admin import AdminClient

from kreislauf.settings import settings
from models.table import RawLines

ANSWER_SECONDS = 10
SLICE_SECONDS = 0.2
SLICE_MESSAGES = 1000
BATCH_BYTES = 64 << 20
"""A batch ends when it holds so many bytes."""


class TopicError(ValueError):
    """A topic cannot be read as asked for; the message says what to do."""


class KafkaUnreachable(TopicError, ConnectionError):
    """Kafka does not answer: the same call may succeed later."""


class MessagesLost(TopicError):
    """Kafka has deleted messages before they were read, or has lost its end."""


@dataclass(frozen=True)
class Batch:
    """What was read: messages of each partition in the order of their offsets, without those that
    Kafka left out."""

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
        stored: Callable[[Sequence[str]], Mapping[str, int | None]],
        skip_lost: bool = False,
    ) -> None:
        """`stored` tells the next offsets by transaction id, None where there is none: from the
        earliest on.

        With `skip_lost`, messages that Kafka has deleted before they were read are left out, and
        counted in `lost`. Raises TopicError if the settings are wrong.
        """
        self.topic = topic
        self.lost = 0
        self._group = group
        self._stored = stored
        self._skip_lost = skip_lost
        self._id = ""
        self._trouble = ""
        self._before: dict[int, int | None] = {}
        self._next: dict[int, int] = {}
        self._ended: set[int] = set()
        self._refused: list[int] = []
        common = _options() | {"error_cb": self._note, "log_level": 0, "client.id": "kreislauf"}
        own = {"group.id": group, "enable.auto.commit": False, "enable.auto.offset.store": False}
        own |= {"auto.offset.reset": "error", "enable.partition.eof": True}
        try:
            self._admin = AdminClient(common)
            self._consumer = Consumer(common | own)
        except (KafkaException, TypeError) as error:
            raise TopicError(
                f"KREISLAUF_KAFKA or KREISLAUF_KAFKA_OPTIONS is wrong: {_said(error)}"
            ) from error

    def __enter__(self) -> "Reader":
        """Raises TopicError if there is no such topic, MessagesLost, and KafkaUnreachable."""
        try:
            self._follow()
        except Exception:
            self._consumer.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()

    @property
    def ended(self) -> bool:
        """Whether every partition has been read to its end at least once."""
        return self._ended == set(self._next)

    @property
    def behind(self) -> int:
        """Messages that are in the topic and have not been read, as far as is known."""
        ends = {
            p: self._consumer.get_watermark_offsets(self._at(p), cached=True) for p in self._next
        }
        return sum(max(0, end[1] - self._next[p]) for p, end in ends.items() if end)

    def batch(
        self, messages: int, seconds: float, stop: Callable[[], bool] = lambda: False
    ) -> Batch:
        """Read until there are `messages` of them or BATCH_BYTES, or after `seconds`, or when
        `stop` says so.

        Call `landed` when it is stored; if it could not be stored, start again with a new Reader.
        Raises MessagesLost, KafkaUnreachable, and TopicError if the topic has been deleted.
        """
        for partition in self._refused:
            self._next[partition] = self._start(partition, self._next[partition], refused=True)
        if self._refused:
            self._assign()
        topic_id = self._id
        read = dict[int, dict[int, bytes]]()
        end = time.monotonic() + seconds
        left = messages
        size = 0
        while (
            left
            and size < BATCH_BYTES
            and not self._refused
            and not stop()
            and time.monotonic() < end
        ):
            for message in self._consumer.consume(min(left, SLICE_MESSAGES), SLICE_SECONDS):
                if self._take(message, read):
                    left = left - 1
                    size = size + len(message)
        self._follow()
        # A topic that was created again meanwhile: whose messages these are is not certain.
        return self._batch(read if self._id == topic_id else {})

    def landed(self, batch: Batch) -> None:
        """The batch is stored: go on from there, and let Kafka's tools see how far that is."""
        reached = {
            int(name.rsplit("/", 1)[1]): after for name, (_, after) in batch.progress.items()
        }
        self._before |= reached
        if reached:
            offsets = [TopicPartition(self.topic, p, n) for p, n in reached.items()]
            self._consumer.commit(offsets=offsets, asynchronous=True)

    def _batch(self, read: Mapping[int, Mapping[int, bytes]]) -> Batch:
        raws = [
            RawLines.of(f"kafka://{self.topic}/{p}", [*some.values()], [*some])
            for p, some in sorted(read.items())
        ]
        return Batch(raws, {self._key(p): (self._before[p], self._next[p]) for p in sorted(read)})

    def _take(self, message: Message, read: dict[int, dict[int, bytes]]) -> bool:
        """Whether it was a message, which is in `read` now, by partition and offset, and no sign of
        something else."""
        error = message.error()
        partition = message.partition()
        offset = message.offset()
        if error and error.code() not in (Code._PARTITION_EOF, Code._AUTO_OFFSET_RESET):
            raise KafkaUnreachable(
                f"Kafka refuses to give messages of topic {self.topic}: {error.str()}"
            )
        assert partition is not None
        assert offset is not None
        if error is None:
            read.setdefault(partition, {})[offset] = message.value() or b""
            self._next[partition] = offset + 1
        elif error.code() == Code._PARTITION_EOF:
            self._ended.add(partition)
        else:
            self._refused.append(partition)
        return error is None

    def _follow(self) -> None:
        """Look at the topic, and read what it has gained: it may be another one by now."""
        topic_id, partitions = self._look()
        if topic_id != self._id:
            self._id = topic_id
            self._before = {}
            self._next = {}
            self._ended = set()
        new = [p for p in partitions if p not in self._next]
        if new:
            stored = self._stored([self._key(p) for p in new])
            self._before |= {p: stored[self._key(p)] for p in new}
            self._next |= {p: self._start(p, self._before[p]) for p in new}
            self._assign()

    def _look(self) -> tuple[str, list[int]]:
        """The id and the partitions of the topic."""
        try:
            (found,) = self._admin.describe_topics(
                TopicCollection([self.topic]), request_timeout=ANSWER_SECONDS
            ).values()  # fmt: skip
            topic = found.result()
        except KafkaException as error:
            if error.args[0].code() in (Code.UNKNOWN_TOPIC_OR_PART, Code.TOPIC_EXCEPTION):
                raise TopicError(
                    f"There is no topic {self.topic!r} in Kafka at {settings().kafka}. Create it, or mend its name."
                ) from error
            raise self._unreachable(error) from error
        # As Kafka's own tools write it.
        return str(topic.topic_id).replace("+", "-").replace("/", "_"), sorted(
            p.id for p in topic.partitions
        )

    def _start(self, partition: int, wanted: int | None, refused: bool = False) -> int:
        """The offset to go on from. Raises MessagesLost if it is not `wanted`, unless these are
        skipped."""
        try:
            # The consumer itself looks for new partitions only every few minutes.
            self._consumer.list_topics(self.topic, timeout=ANSWER_SECONDS)
            low, high = self._consumer.get_watermark_offsets(
                self._at(partition), timeout=ANSWER_SECONDS
            )
        except KafkaException as error:
            raise self._unreachable(error) from error
        if wanted is None or (wanted >= low and not refused):
            return low if wanted is None else wanted
        where = f"partition {partition} of topic {self.topic}"
        if wanted < low:
            what = f"{low - wanted} messages of {where} were deleted before they were read (offsets {wanted} to {low - 1})"
        elif wanted > high:
            what = f"{where} ends at offset {high}, but has been read up to {wanted}: it was cut off, or replaced"
        else:
            return wanted
        if not self._skip_lost:
            raise MessagesLost(
                f"{what}. If they exist elsewhere, ingest them from there: rows are recognised by their key. "
                f"Then run once with skip_lost=True, which goes on at offset {low}."
            )
        self.lost += max(0, low - wanted)
        return low

    def _assign(self) -> None:
        self._refused = []
        self._consumer.assign([TopicPartition(self.topic, p, n) for p, n in self._next.items()])

    def _at(self, partition: int) -> TopicPartition:
        return TopicPartition(self.topic, partition)

    def _key(self, partition: int) -> str:
        return f"kafka/{self.topic}/{self._id}/{partition}"

    def _note(self, error: Code) -> None:
        """Keep the network's last words: what a call raises is only that the time was up."""
        if error.code() != Code._ALL_BROKERS_DOWN:
            self._trouble = error.str()

    def _unreachable(self, error: KafkaException) -> KafkaUnreachable:
        self._admin.poll(0)  # calls _note
        return KafkaUnreachable(
            f"Kafka at {settings().kafka} does not answer ({self._trouble or _said(error)}). "
            "Check KREISLAUF_KAFKA, KREISLAUF_KAFKA_OPTIONS and the network."
        )


def _options() -> dict:
    where = settings()
    if not where.kafka:
        raise TopicError(
            "No Kafka: set KREISLAUF_KAFKA to the addresses of its brokers, host:port,host:port."
        )
    return {**where.kafka_options, "bootstrap.servers": where.kafka}


def _said(error: Exception) -> str:
    """Kafka's words without the code around them."""
    first = error.args[0] if error.args else error
    return first.str() if isinstance(first, Code) else str(first)
