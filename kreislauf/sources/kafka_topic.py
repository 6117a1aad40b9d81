"""A topic as Kafka describes it, and what can be wrong with a topic or with Kafka."""

from confluent_kafka import Consumer, KafkaException, TopicCollection
from confluent_kafka import KafkaError as Code
from confluent_kafka.admin import AdminClient

from kreislauf.settings import settings

ANSWER_SECONDS = 10
"""Seconds for which an answer of Kafka is waited for."""


class TopicError(ValueError):
    """A topic cannot be read as asked for; the message says what to do."""


class KafkaUnreachable(TopicError, ConnectionError):
    """Kafka does not answer: the same call may succeed later."""


class MessagesLost(TopicError):
    """Kafka has deleted messages before they were read, or has lost its end."""


class TopicClient:
    """A connection to Kafka for one topic. Raises TopicError if the settings are wrong."""

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self._network_error = ""
        self._options = _options() | {
            "error_cb": self._note_error,
            "log_level": 0,
            "client.id": "kreislauf",
        }
        try:
            self._admin = AdminClient(self._options)
        except (KafkaException, TypeError) as error:
            raise _wrong_options(error) from error

    def consumer(self, options: dict) -> Consumer:
        """A consumer with `options` besides those of the settings. Raises TopicError."""
        try:
            return Consumer(self._options | options)
        except (KafkaException, TypeError) as error:
            raise _wrong_options(error) from error

    def describe(self) -> tuple[str, list[int]]:
        """The id and the partitions of the topic.

        Raises TopicError if there is no such topic, and KafkaUnreachable.
        """
        names = TopicCollection([self.topic])
        try:
            (answer,) = self._admin.describe_topics(names, request_timeout=ANSWER_SECONDS).values()
            description = answer.result()
        except KafkaException as error:
            if error.args[0].code() in (Code.UNKNOWN_TOPIC_OR_PART, Code.TOPIC_EXCEPTION):
                raise TopicError(
                    f"There is no topic {self.topic!r} in Kafka at {settings().kafka}. "
                    "Create it, or mend its name."
                ) from error
            raise self.unreachable(error) from error
        # As Kafka's own tools write it.
        topic_id = str(description.topic_id).replace("+", "-").replace("/", "_")
        return topic_id, sorted(partition.id for partition in description.partitions)

    def unreachable(self, error: KafkaException) -> KafkaUnreachable:
        """The error to raise for `error`, with the network's last words."""
        self._admin.poll(0)  # calls _note_error
        reason = self._network_error or _message(error)
        return KafkaUnreachable(
            f"Kafka at {settings().kafka} does not answer ({reason}). "
            "Check KREISLAUF_KAFKA, KREISLAUF_KAFKA_OPTIONS and the network."
        )

    def _note_error(self, error: Code) -> None:
        """Keep the network's last words: what a call raises is only that the time was up."""
        if error.code() != Code._ALL_BROKERS_DOWN:
            self._network_error = error.str()


def _options() -> dict:
    """Options of librdkafka from the settings."""
    current = settings()
    if not current.kafka:
        raise TopicError(
            "No Kafka: set KREISLAUF_KAFKA to the addresses of its brokers, host:port,host:port."
        )
    # librdkafka wants text: true, not True.
    given = {name: str(value) for name, value in current.kafka_options.items()}
    booleans = {n: str(v).lower() for n, v in current.kafka_options.items() if isinstance(v, bool)}
    return given | booleans | {"bootstrap.servers": current.kafka}


def _wrong_options(error: Exception) -> TopicError:
    return TopicError(f"KREISLAUF_KAFKA or KREISLAUF_KAFKA_OPTIONS is wrong: {_message(error)}")


def _message(error: Exception) -> str:
    """Kafka's words without the code around them."""
    if error.args and isinstance(error.args[0], Code):
        return error.args[0].str()
    return str(next(iter(error.args), error))
