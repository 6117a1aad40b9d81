"""Stream: a Kafka topic into the lake, batch after batch, while its deployment is switched on."""

from functools import partial

from prefect import flow

from kreislauf.lake import open_tables
from kreislauf.people import Share
from models import mapping as mappings
from tasks.stream import StreamReport, land_topic, retry_while_unreachable, stream_run


@flow
def stream(
    topic: str,
    model: str | None = None,
    batch_seconds: float = 30,
    batch_messages: int = 100_000,
    max_reject_share: Share = 0.1,
    until_end: bool = False,
    skip_lost: bool = False,
    mapping: str | None = None,
) -> StreamReport:
    """Land a Kafka topic in the table of a model type, each message exactly once.

    A batch is one commit, and how far the topic has been read is stored in it. So a run that ends
    in any way, even by kill -9, leaves nothing to mend: the next one goes on. A run ends well when
    its deployment is paused, or when a newer run of its deployment is due, which then takes over.

    Args:
        topic: Kafka topic; each message is a line of JSON. Kafka's address is in KREISLAUF_KAFKA.
        model: Model type, a folder in `models/`; by default the mapping's or `session_recommender`.
        batch_seconds: Seconds after which a batch, a version of the table, is stored if not full.
        batch_messages: Messages, or 64 MB, with which a batch is full.
        max_reject_share: Maximum share of bad messages; a worse batch stops the stream unseen.
        until_end: End, whether paused or not, when the topic has been read to its end.
        skip_lost: Go on with the messages that Kafka still has, if it deleted some unread.
        mapping: Path of a YAML file that says how a message's fields become the table's columns.

    Returns:
        The accounts of this run, which balance; a line is a message. Rejected messages are in the
        table `rejects`, byte for byte; `line` is their offset.

    Raises:
        ValueError: No model type has this name, or the mapping does not fit.
        TopicError: There is no such topic, or Kafka's settings are wrong.
        MessagesLost: Kafka deleted messages before they were read.
        TooManyRejects: The topic is broken: the batch is not loaded.
        BrokenTopic: The topic is broken, and its batches are small: they are loaded.
        Overtaken: Another run lands the same topic.
        ConnectionError: Kafka or the lake did not answer for five minutes.
    """
    model_type, reading = mappings.find(mapping, model)
    table = model_type.table
    with (
        open_tables.kept_open(),
        stream_run(table.name, topic, max_reject_share, ends_itself=until_end) as run,
    ):
        land = partial(
            land_topic,
            table,
            topic,
            batch_messages,
            batch_seconds,
            max_reject_share,
            until_end,
            skip_lost,
            reading,
            run.is_over,
        )
        for accounts, reader in retry_while_unreachable(land, run.is_over):
            run.note(accounts, reader)
    return run.report()
